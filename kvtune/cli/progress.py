"""Progress of a long step on stderr: a bar with an ETA on a terminal, plain lines when piped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvtune.cli.common import err
from kvtune.text import visible

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
    with Progress(*columns, console=err(), disable=err().quiet) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total or None, visible=True)


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
        err().print(line, soft_wrap=True)

    return show
