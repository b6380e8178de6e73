"""One line, or two, of captions being written: a bar that moves with their tokens, how quick it goes, what is left."""

import time
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kvtune.report.terminal.tables import WIDEST
from kvtune.study.pace import Pace
from kvtune.text import visible


class PaceBar:
    """Shows a pace, and until there is one that it is being made ready.

    Attributes
    ----------
    done, total
        Captions that are there, and captions that there are to be.
    """

    def __init__(self, what: str, pace: Pace | None = None) -> None:
        self.done = self.total = 0
        self.pace = pace
        self._what, self._begun = visible(what), time.monotonic()
        self._spinner = Spinner("line")

    def follow(self, pace: Pace) -> None:
        """Show this pace, and the captions that it counts."""
        self.pace, self.done, self.total = pace, pace.there, pace.total

    def __rich__(self) -> RenderableType:
        elapsed = timedelta(seconds=int(time.monotonic() - self._begun))
        if self.pace is None:
            line = Table.grid(padding=(0, 1))
            line.add_row(self._spinner, Text(f"{self._what}: making ready, {elapsed}"))
            return line
        left = self.pace.seconds_left()
        line = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None):
            line.add_column(ratio=ratio, no_wrap=True)
        to_go = "-:--:--" if left is None else str(timedelta(seconds=round(left)))
        line.add_row(
            self._spinner,
            Text(self._what),
            ProgressBar(total=1.0, completed=self.pace.share),
            Text(f"{self.done}/{self.total}"),
            Text(f"elapsed {elapsed} to go {to_go}"),
        )
        tokens = Text(f"  {self.pace.tokens:,} tokens, {self.pace.tokens_a_second:,.0f} a second")
        workers = [Text(f"  {visible(line)}") for line in self.pace.by.splitlines()]
        return Group(Constrain(line, WIDEST), tokens, *workers)


def counted(what: str, done: int, total: int) -> str:
    """What is done, and how much of it."""
    return f"{visible(what)} {done}/{total}" if total else visible(what)
