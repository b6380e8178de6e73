"""Text and JSON in files; what is neither is refused in one line."""

import codecs
import json
import re
import reprlib
import sys
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError
from kvtune.files import write_text
from kvtune.text import json_text

STANDARD_INPUT = Path("-")
"""What stands for it where a file is named."""

_SPACE = re.compile(r"[ \t\r\n]*")
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented JSON; see :func:`write_text`."""
    write_text(path, json_text(document, indent=2) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; ``what`` names it in the message ("subset", "preset").

    Raises
    ------
    RequestError
        If the file is missing, unreadable or not JSON.
    """
    return parse_json(read_text(path, what), f"{what} file {path}")


def read_text(path: Path, what: str) -> str:
    """Read UTF-8 text, with or without a byte order mark.

    Raises
    ------
    RequestError
        If the file is missing, unreadable or other text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"{what} file {path} cannot be read: {error.strerror or error}") from None
    return decode(data, f"{what} file {path}")


def read_standard_input(what: str) -> str:
    """Read UTF-8 text from standard input; errors as :func:`decode`."""
    return decode(sys.stdin.buffer.read() if sys.stdin else b"", what)


def decode(data: bytes, what: str) -> str:
    """UTF-8 text, with or without a byte order mark; ``what`` names it in the message.

    Raises
    ------
    RequestError
        If it is other text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "UTF-16" if utf_16 else f"byte {error.start} is 0x{data[error.start]:02x}"
        raise RequestError(f"{what} is not UTF-8 text ({reason}); save it as UTF-8") from None


def parse_json(text: str, what: str, *, each_key_once: bool = False) -> Any:
    """The one JSON value of a text; arguments and errors as :func:`parse_json_values`."""
    values = parse_json_values(text, what, each_key_once=each_key_once)
    if len(values) != 1:
        many = f"{len(values)} JSON values stand one after another" if values else "it is empty"
        raise RequestError(f"{what} is not valid JSON: {many}")
    return values[0]


def parse_json_values(text: str, what: str, *, each_key_once: bool = False) -> list[Any]:
    """The JSON values of a text, one after another: one document, JSON lines, or objects over several lines.

    Half of a surrogate pair becomes U+FFFD, so that whatever was read can be printed and written.

    Parameters
    ----------
    what
        How a message calls the text ("subset file /tmp/s.json").
    each_key_once
        Refuse an object that has a key twice, of which JSON keeps the last without a word.

    Raises
    ------
    RequestError
        If something is no JSON, is nested too deeply, has a number of more digits than Python reads, or a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RequestError(f"{what} has the key {reprlib.repr(twice)} twice in one object; keep one")
        return found

    decoder = json.JSONDecoder(object_pairs_hook=once if each_key_once else None)
    values = []
    at = _SPACE.match(text).end()  # type: ignore[union-attr]
    try:
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            values.append(without_half_pairs(value) if _HALF_PAIR.search(text, at, end) else value)
            at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()):
            raise RequestError(f"{what} is not valid JSON: cut off in the value at {place}") from None
        raise RequestError(f"{what} is not valid JSON: {error.msg}, {place}") from None
    except RecursionError:
        raise RequestError(f"{what} is not read: the value at {_line(text, at)} is nested too deeply") from None
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise RequestError(f"{what} is not read: a number after {_line(text, at)} has over {digits} digits") from None
    return values


def without_half_pairs(value: Any) -> Any:
    """What was read from JSON, with U+FFFD for half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_half_pairs(each) for each in value]
    if isinstance(value, dict):
        return {without_half_pairs(key): without_half_pairs(each) for key, each in value.items()}
    return value


def _line(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}"
