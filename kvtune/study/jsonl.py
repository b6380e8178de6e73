"""Append-only files of JSON lines that survive a kill at any moment."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvtune.errors import KvtuneError, RequestError
from kvtune.json_files import decode, parse_json
from kvtune.text import json_text

_BLOCK = 1 << 16


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """Read the whole lines of a file; a last line without its line break (a write cut short) is left out.

    A file that does not exist has no lines. The file is not changed, so another process may be writing it.

    Raises
    ------
    KvtuneError
        If the file cannot be read, or a line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    return
                try:
                    line = parse_json(decode(raw[:-1], str(path)), str(path))
                except RequestError:
                    line = None
                if not isinstance(line, dict):
                    raise KvtuneError(
                        f"{path} line {number} is not a JSON object; remove that line to go on without it"
                    )
                yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise KvtuneError(f"cannot read {path}: {error.strerror or error}") from error


class LineWriter:
    """Appends JSON lines to a file, each handed to the operating system as a whole before the next.

    Parameters
    ----------
    path
        The file; it and its folder are made where they are missing. Whatever follows its last line break is cut off.

    Raises
    ------
    KvtuneError
        If the file cannot be written; see :meth:`append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._end = _whole_lines(self._file)
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise self._failed(error) from error

    def append(self, line: dict[str, Any]) -> None:
        """Append one line.

        Raises
        ------
        KvtuneError
            If it cannot be written whole (the disk is full); the file then ends where it ended before.
        """
        data = json_text(line).encode() + b"\n"
        try:
            written = 0
            while written < len(data):  # after a short write the next one fails and says why
                written += os.write(self._file, data[written:])
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise self._failed(error) from error
        self._end += len(data)

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _failed(self, error: OSError) -> KvtuneError:
        return KvtuneError(
            f"cannot write {self.path}: {error.strerror or error}; free some space or make the folder writable"
        )


def _whole_lines(file: int) -> int:
    """Length of the part of an open file that ends with its last line break, in bytes."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
