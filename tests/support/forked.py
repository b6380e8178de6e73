"""Processes that begin with all imported, which takes seconds; they live, are killed and end as any other."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvtune.cli.main import program


class Forked:
    """``run`` in a process of its own.

    Parameters
    ----------
    run
        What it does; it ends with exit code 0 when that returns.
    out, err
        Files that its standard output and error go to.
    """

    def __init__(self, run: Callable[[], Any], out: Path | str = os.devnull, err: Path | str = os.devnull) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 99
            atexit._clear()  # what is to be done when this process ends is its own
            try:
                for number, (name, path) in enumerate((("stdin", os.devnull), ("stdout", out), ("stderr", err))):
                    flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0)
                    os.dup2(os.open(path, flags, 0o666), number)
                    stream = os.fdopen(number, "w" if number else "r", closefd=False)
                    setattr(sys, name, stream)
                    setattr(sys, f"__{name}__", stream)
                run()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """How it ended, or None while it runs; minus the number of the signal that killed it."""
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        """How it ended, when it has."""
        code = self._waited(0)
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def kvtune_forked(
    *words: object, cwd: Path | None = None, ignored: signal.Signals | None = None, **files: Path
) -> Forked:
    """``kvtune`` with these words as a process of its own, in a folder, and deaf to a signal."""
    import kvtune.captioning
    import kvtune.search.session  # noqa: F401  # once, and not in every process

    def run() -> None:
        if cwd is not None:
            os.chdir(cwd)
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)
        sys.argv = ["kvtune", *map(str, words)]
        program()

    return Forked(run, **files)
