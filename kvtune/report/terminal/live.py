"""What one sees of a search on a terminal while it runs: progress, the trade-off so far, the front, what came last."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from kvtune.analysis.summarize import summary_of
from kvtune.report.terminal.pace_bar import PaceBar, counted
from kvtune.report.terminal.scatter import scatter
from kvtune.report.terminal.tables import WIDEST
from kvtune.report.terminal.trials import shown_front, trials_table
from kvtune.search.view import PlainView, Stage, View
from kvtune.study.manifest import Manifest
from kvtune.study.pace import Pace
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial, called

FRONT_ROWS = 12
LATEST_ROWS = 6
"""Rows of the front, and of the latest other trials, that fit on a terminal beside the rest."""

_SMALLEST_PICTURE = 10
"""Lines that the picture needs; on a lower terminal it is left out."""

_LARGEST_PICTURE = 18
_LEGEND = 3


class LiveView(View):
    """A live display of the same pieces that ``kvtune pareto`` shows."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def making_ready(self) -> Iterator[Stage]:
        spinner = Spinner("dots", Text("making ready"))
        # What other libraries write to stderr, such as a download's progress, moves on a line of its own.
        with Live(spinner, console=self._console, transient=True, redirect_stderr=False):
            yield lambda what, done, total: spinner.update(text=Text(counted(what, done, total)))

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int, pace: Pace) -> Iterator[None]:
        self._manifest, self._ledger = manifest, ledger
        self._images = len(manifest.tune.image_ids)
        self._in_work: dict[int | None, int] = {}
        self._bar, self._pace = PaceBar("captions", pace), pace
        self._bar.total = captions
        self._results: RenderableType = ""
        self._judged()
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True):
            yield

    def note(self, text: str) -> None:
        self._console.print(text)

    def started(self, number: int | None, captions: int) -> None:
        self._in_work[number] = captions

    def caption(self, number: int | None) -> None:
        self._in_work[number] += 1
        self._bar.done += 1

    def stopped(self, number: int, spared: int) -> None:
        self._in_work.pop(number, None)
        self._bar.total -= spared

    def ended(self, trial: Trial) -> None:
        self._in_work.pop(trial.number, None)
        if trial.state == "failed":
            self.note(f"trial {trial.number} failed: {trial.reason}")
        self._judged()

    def _judged(self) -> None:
        """Draw anew what changes with each trial, and only then."""
        summary = summary_of(StudyFolder(self._ledger.path.parent), self._manifest, self._ledger)
        members = set(summary.front)
        by_number = summary.by_number
        others = [t for t in summary.trials if t.number not in members and t.scores is not None]
        front = [by_number[number] for number in shown_front(summary, None)]
        rows = [*([summary.baseline] if summary.baseline else []), *front[:FRONT_ROWS]]
        latest = others[: -LATEST_ROWS - 1 : -1]
        parts: list[RenderableType] = []
        if rows or latest:
            parts.append(trials_table(replace(summary, cut_baseline=[]), None, self._console, rows=[*rows, *latest]))
        if len(members) > len(front[:FRONT_ROWS]):
            parts.append(f"and {len(members) - len(front[:FRONT_ROWS])} more on the front")
        if len(others) > LATEST_ROWS:
            parts.append(f"and {len(others) - LATEST_ROWS} trials before")
        height = self._console.height - self._lines(parts) - _LEGEND - 4 - len(self._pace.by.splitlines())
        picture = Text()
        if summary.front and height >= _SMALLEST_PICTURE:
            picture = scatter(
                summary,
                None,
                width=min(self._console.width, WIDEST),
                height=min(height, _LARGEST_PICTURE),
                ascii_only=self._console.options.ascii_only,
            )
        self._results = Group(picture, "", *parts) if picture else Group(*parts)

    def _lines(self, parts: list[RenderableType]) -> int:
        return len(self._console.render_lines(Group(*parts), pad=False))

    def _render(self) -> RenderableType:
        fingerprint = self._manifest.fingerprint
        title = f"{fingerprint.method} on {self._manifest.model}, {self._images} images, sampler {fingerprint.sampler}"
        at_work = ", ".join(f"{called(number)}: {captions}" for number, captions in self._in_work.items())
        raced = sum(trial.state == "raced" for trial in self._ledger.trials)
        done = f"trials finished: {self._ledger.finished}" + (f", {raced} of them raced out" if raced else "")
        done += f"   in work (captions of {self._images}): {at_work}" if at_work else ""
        return Group(Text(title), self._bar, Text(done), self._results)


def view_for(console: Console) -> View:
    """The view that suits a console."""
    return LiveView(console) if console.is_terminal else PlainView(console)
