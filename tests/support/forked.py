"""Processes that begin with all imported, which takes seconds; they live, are killed and end as any other.

A server that has imported and done nothing else is forked for each, and not the process of the tests, whose threads and
libraries a fork would leave in any state.
"""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["kvtune.captioning", "kvtune.search.session", "kvtune.cli.main", __name__])


class Forked:
    """``run`` in a process of its own.

    Parameters
    ----------
    run
        A function of a module; the process ends with exit code 0 when that returns.
    arguments
        What it is given.
    cwd
        The folder that it runs in.
    out, err
        Files that its standard output and error go to.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        *arguments: Any,
        cwd: Path | None = None,
        out: Path | str = os.devnull,
        err: Path | str = os.devnull,
    ) -> None:
        given = (str(cwd or Path.cwd()), dict(os.environ), (os.devnull, str(out), str(err)), run, arguments)
        self._process = CONTEXT.Process(target=_run, args=given, daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        """How it ended, or None while it runs; minus the number of the signal that killed it."""
        return self._process.exitcode

    def wait(self) -> int:
        """How it ended, when it has."""
        self._process.join()
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            assert self._process.pid
            os.kill(self._process.pid, number)


def kvtune_forked(*words: object, ignored: signal.Signals | None = None, **where: Any) -> Forked:
    """``kvtune`` with these words as a process of its own, deaf to a signal; the rest as for :class:`Forked`."""
    return Forked(_kvtune, list(map(str, words)), ignored, **where)


def _run(
    cwd: str, environment: dict[str, str], files: tuple[str, str, str], run: Callable[..., Any], arguments: Any
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, (name, path) in enumerate(zip(("stdin", "stdout", "stderr"), files, strict=True)):
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0)
        os.dup2(os.open(path, flags, 0o666), number)
        stream = os.fdopen(number, "w" if number else "r", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    run(*arguments)


def _kvtune(words: list[str], ignored: signal.Signals | None) -> None:
    from kvtune.cli.main import program

    if ignored is not None:
        signal.signal(ignored, signal.SIG_IGN)
    sys.argv = ["kvtune", *words]
    program()
