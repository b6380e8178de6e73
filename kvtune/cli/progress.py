"""Progress of a long step on stderr: a bar with an ETA on a terminal, plain lines when piped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kvtune.cli.common import err
from kvtune.text import visible

if TYPE_CHECKING:
    from kvtune.study.pace import Pace

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far ``what`` is; the function that it gives takes (done, total), total 0 where it is not known.

    Nothing is shown before the first call, and nothing at all with ``--quiet``.
    """
    what = visible(what)
    if not err().is_terminal:
        yield _plain_lines(what, in_bytes)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount: tuple[ProgressColumn, ...] = (
        (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=err(), disable=err().quiet, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total or None, visible=True)


@contextmanager
def captions_progress(what: str) -> Iterator[Callable[["Pace"], None]]:
    """Show captions being written, and before that that they are made ready; the function it gives takes their pace."""
    if not err().is_terminal:
        yield _plain_captions(visible(what))
        return
    if err().quiet:
        yield lambda pace: None
        return
    from rich.live import Live

    from kvtune.report.terminal.pace_bar import PaceBar

    bar = PaceBar(what)
    # While a model is loaded, what other libraries write to stderr, such as their own bars, moves on a line of its own.
    ready = Live(bar, console=err(), refresh_per_second=4, transient=True, redirect_stderr=False)
    at_work = Live(bar, console=err(), refresh_per_second=4)

    def follow(pace: "Pace") -> None:
        bar.follow(pace)
        if not at_work.is_started:
            ready.stop()
            at_work.start()

    with ready:
        try:
            yield follow
        finally:
            at_work.stop()


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show on a terminal that something is done whose end is not known."""
    if err().is_terminal and not err().quiet:
        with err().status(what):
            yield
    else:
        yield


def _plain_captions(what: str) -> Callable[["Pace"], None]:
    last: float | None = None
    ended = False

    def show(pace: "Pace") -> None:
        nonlocal last, ended
        now = time.monotonic()
        if ended and pace.there == pace.total:
            return
        ended = pace.there == pace.total
        if last is not None and now - last < _SECONDS_BETWEEN_LINES and not ended:
            return
        last = now
        err().print_line(", ".join(filter(None, [f"{what}: {pace.there} of {pace.total}", pace.words()])))

    return show


def _plain_lines(what: str, in_bytes: bool) -> Callable[[int, int], None]:
    first: tuple[float, int] | None = None
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        # What an earlier run has done says nothing of how quick this one is.
        began, before = first = first or (now, done)
        if done != total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        unit, divisor = (" MB", 1e6) if in_bytes else ("", 1)
        line = f"{what}: {done / divisor:.0f}" + (f" of {total / divisor:.0f}" if total else "") + unit
        if before < done < total:
            line += f", {(now - began) * (total - done) / (done - before):.0f} s left"
        err().print_line(line)

    return show
