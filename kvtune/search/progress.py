"""What one sees of a search while it runs: a live display on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kvtune.search.front import front
from kvtune.search.ledger import Ledger, Trial
from kvtune.search.manifest import Manifest

PLAIN_SECONDS = 15.0
"""Between two plain lines of progress."""

ENOUGH_FOR_A_RATE = 50
"""Captions before an ETA is given: they finish in bursts, and the first of them long after their batch began."""

FRONT_ROWS = 12
LATEST_ROWS = 6
"""Rows of the front, and of the latest other trials, that fit on a terminal beside the rest."""


class View:
    """Shows nothing, and is what other views extend.

    A search enters :meth:`showing` once, then reports each trial as it starts, each caption, and each trial's end.
    """

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int) -> Iterator[None]:
        """Show a search that has ``captions`` captions before it; the ledger changes under the view."""
        yield

    @contextlib.contextmanager
    def checking(self) -> Iterator[Callable[[int, int], None]]:
        """Show images being checked; the function that it gives takes (images checked, all images)."""
        yield lambda done, total: None

    def note(self, text: str) -> None:
        """Say something once."""

    def started(self, number: int | None, captions: int) -> None:
        """A trial (None: the baseline), of which there are ``captions`` captions already, is being captioned."""

    def caption(self, number: int | None) -> None:
        """A caption of this trial was written."""

    def stopped(self, number: int, spared: int) -> None:
        """A trial was raced out; so many of its captions will not be written."""

    def ended(self, trial: Trial) -> None:
        """A trial, or the baseline, was judged or failed."""


class PlainView(View):
    """Lines for logs and pipes: each trial as it ends, and progress with an ETA every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def checking(self) -> Iterator[Callable[[int, int], None]]:
        last = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                self.note(f"{done}/{total} images checked")

        yield show

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int) -> Iterator[None]:
        self._names = list(manifest.fingerprint.space.parameters)
        self._manifest, self._ledger = manifest, ledger
        self._captions, self._written = captions, 0
        self._begun = self._last = time.monotonic()
        self.note(f"{captions} captions to write, {ledger.finished} trials finished")
        yield

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def caption(self, number: int | None) -> None:
        self._written += 1
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            line = f"{self._written}/{self._captions} captions"
            if self._written >= ENOUGH_FOR_A_RATE:
                rate = self._written / (now - self._begun)
                left = timedelta(seconds=round(max(0, self._captions - self._written) / rate))
                line += f", {rate:.1f} a second, {left} to go"
            self.note(line)

    def stopped(self, number: int, spared: int) -> None:
        self._captions -= spared

    def ended(self, trial: Trial) -> None:
        if trial.point is None:
            self.note(f"trial {trial.number}: failed ({trial.reason})")
            return
        name = "baseline" if trial.number is None else f"trial {trial.number}"
        scores = f"CHAIR_S {trial.point[0]:.1f}, F1 {trial.point[1]:.1f}"
        parameters = " ".join(f"{key}={trial.params[key]:.4g}" for key in self._names if key in trial.params)
        remark = ", on the front" if trial.number in _front_numbers(self._manifest, self._ledger) else ""
        if trial.state == "raced" and trial.metrics is not None:
            remark = f", raced out after {trial.metrics['images']} images by trial {trial.by}"
        self.note(f"{name}: {scores}{remark}" + (f"  ({parameters})" if parameters else ""))


class LiveView(View):
    """A live display: progress with an ETA, the trials in work, the front so far with the baseline above it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def checking(self) -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("images checked"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int) -> Iterator[None]:
        self._manifest, self._ledger = manifest, ledger
        self._images = len(manifest.tune["image_ids"])
        self._in_work: dict[int | None, int] = {}
        self._progress = Progress(
            TextColumn("captions"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=120,
        )
        self._total = captions
        self._task = self._progress.add_task("captions", total=captions)
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True):
            yield

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def started(self, number: int | None, captions: int) -> None:
        self._in_work[number] = captions

    def caption(self, number: int | None) -> None:
        self._in_work[number] += 1
        self._progress.advance(self._task)

    def stopped(self, number: int, spared: int) -> None:
        self._in_work.pop(number, None)
        self._total -= spared
        self._progress.update(self._task, total=self._total)

    def ended(self, trial: Trial) -> None:
        self._in_work.pop(trial.number, None)
        if trial.state == "failed":
            self.note(f"trial {trial.number} failed: {trial.reason}")

    def _render(self) -> RenderableType:
        fingerprint = self._manifest.fingerprint
        title = f"{fingerprint.method} on {self._manifest.model}, {self._images} images, sampler {fingerprint.sampler}"
        at_work = ", ".join(
            f"{'baseline' if number is None else number} {captions}/{self._images}"
            for number, captions in self._in_work.items()
        )
        raced = sum(trial.state == "raced" for trial in self._ledger.trials)
        done = f"trials finished: {self._ledger.finished}" + (f", {raced} of them raced out" if raced else "")
        done += f"   in work: {at_work}" if at_work else ""
        return Group(title, self._progress, done, self._trials_table())

    def _trials_table(self) -> Table:
        names = list(self._manifest.fingerprint.space.parameters)
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
        table.add_column("trial", vertical="bottom")
        for heading in [*(name.replace("_", "\n") for name in names), "CHAIR_S", "F1", "words"]:
            table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")

        def add(trial: Trial, label: str) -> None:
            if trial.point is None or trial.metrics is None:
                return
            values = [f"{trial.params[name]:.4g}" if name in trial.params else "" for name in names]
            scores = [f"{value:.1f}" for value in (*trial.point, trial.metrics["mean_words"])]
            label += (", published" if trial.published else "") + (" raced out" if trial.state == "raced" else "")
            table.add_row(label, *values, *scores)

        add(self._ledger.baseline, "baseline")
        members = _front_numbers(self._manifest, self._ledger)
        for number in members[:FRONT_ROWS]:
            add(self._ledger[number], f"{number} front")
        if len(members) > FRONT_ROWS:
            table.add_row(f"and {len(members) - FRONT_ROWS} more on the front")
        others = [trial for trial in self._ledger.trials if trial.number not in members and trial.point is not None]
        for trial in reversed(others[-LATEST_ROWS:]):
            add(trial, f"{trial.number}")
        if len(others) > LATEST_ROWS:
            table.add_row(f"and {len(others) - LATEST_ROWS} before")
        return table


def view_for(console: Console) -> View:
    """The view that suits a console."""
    return LiveView(console) if console.is_terminal else PlainView(console)


def _front_numbers(manifest: Manifest, ledger: Ledger) -> list[int]:
    """Numbers of the front's trials, by rising CHAIR_S."""
    constraints = manifest.constraints(ledger.baseline)
    known = [(trial.number, trial.point) for trial in ledger.trials if constraints.met_by(trial)]
    members = front([point for _, point in known if point is not None])
    return [number for number, _ in (known[index] for index in members) if number is not None]
