"""The records of a COCO annotation file one after another, so that memory does not grow with the file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

CHUNK = 1 << 20
LARGEST = 1 << 26
"""Characters of one record; a polygon of ten thousand points has 200,000."""

_SPACE = re.compile(r"[ \t\r\n]*")


class JSONFormError(ValueError):
    """A text that is no JSON; the message says why."""


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (key, record) for each record of each list in the object that a JSON file holds.

    Values that are no lists come as one record.

    Raises
    ------
    JSONFormError
        If the file is not JSON, is cut off, or holds something else than an object.
    ValueError
        If it is not UTF-8, or a number in it has too many digits.
    OSError
        If it cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        reader = _Reader(file)
        reader.expect("{")
        while not reader.follows("}"):
            key = reader.value()
            if not isinstance(key, str):
                raise JSONFormError("a key that is no text")
            reader.expect(":")
            if reader.follows("["):
                while not reader.follows("]"):
                    yield key, reader.value()
                    if not reader.follows(","):
                        reader.expect("]")
                        break
            else:
                yield key, reader.value()
            if not reader.follows(","):
                reader.expect("}")
                break
        reader.expect("")


class _Reader:
    """JSON values and signs out of a part of a file's text that moves along."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._ended = "", 0, False
        self._decode = json.JSONDecoder(parse_constant=_refuse).raw_decode

    def follows(self, sign: str) -> bool:
        """Whether ``sign`` is next; it is then passed."""
        if self._next() != sign:
            return False
        self._at += len(sign)
        return True

    def expect(self, sign: str) -> None:
        """Pass ``sign``; the empty one is the end of the file."""
        if not self.follows(sign):
            if not self._next():
                raise JSONFormError("cut off")
            raise JSONFormError(f"{self._next()!r} where {repr(sign) if sign else 'the end'} should be")

    def value(self) -> Any:
        """The value that is next."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end + len("e+") < len(self._text) or self._ended:  # or a number may go on behind what was read
                    self._at = end
                    return value
            except RecursionError:
                raise JSONFormError("nested too deeply") from None
            except json.JSONDecodeError as error:
                if self._ended:
                    cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text.rstrip())
                    raise JSONFormError("cut off" if cut else error.msg) from None
            if len(self._text) - self._at > LARGEST:
                raise JSONFormError("a record that is no JSON, or too long")
            self._read(max(CHUNK, len(self._text) - self._at))

    def _next(self) -> str:
        """The character that is next behind white space; none at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read(CHUNK)

    def _read(self, characters: int) -> None:
        more = self._file.read(characters)
        self._text, self._at, self._ended = self._text[self._at :] + more, 0, not more


def _refuse(constant: str) -> None:
    raise JSONFormError(f"{constant} is no number")
