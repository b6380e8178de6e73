"""Standard streams that never end the work: what cannot be shown is lost, what was done is kept."""

import contextlib
import io
import os
import sys
from typing import TextIO


class _Raw(io.FileIO):
    """A file that takes everything; the first error is kept, and nothing is written after it."""

    error: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


_stdout: _Raw | None = None


def guard_streams() -> None:
    """Put guarded streams in the place of the process's own stdout and stderr.

    A command goes on when its output cannot be written (a full disk, a reader that has left, a closed stream), so that
    its files are all there; :func:`output_error` says at the end what stdout's trouble was. Streams that a test or
    another program has put in place are left alone. A descriptor that is closed is filled, or the next file that is
    opened would get its number and whatever is printed.
    """
    global _stdout
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number; writing to it fails
    if sys.stdout is sys.__stdout__:
        _stdout = _Raw(1, "w", closefd=False)
        sys.stdout = _text(_stdout, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Raw(2, "w", closefd=False), sys.stderr, line_buffering=True)


def output_error() -> OSError | None:
    """Write what stdout holds back, and return the error that kept some of the output from being written, if any."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    return None if _stdout is None else _stdout.error


def _text(raw: _Raw, before: TextIO | None, line_buffering: bool = False) -> TextIO:
    if before is not None:
        with contextlib.suppress(OSError, ValueError):
            before.flush()
    encoding = getattr(before, "encoding", None) or "utf-8"
    line_buffering = line_buffering or raw.isatty()
    buffer = io.BufferedWriter(raw)  # type: ignore[type-var]
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=line_buffering)
