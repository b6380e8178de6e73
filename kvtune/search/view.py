"""What a search tells while it runs; a view that prints it as plain lines; the live one is in the report."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console

from kvtune.statistics.front import front
from kvtune.study.manifest import Manifest
from kvtune.study.trials import Ledger, Trial

PLAIN_SECONDS = 15.0
"""Between two plain lines of progress."""

ENOUGH_FOR_A_RATE = 50
"""Captions before an ETA is given: they finish in bursts, and the first of them long after their batch began."""


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
        self._console.print(text, soft_wrap=True)

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


def _front_numbers(manifest: Manifest, ledger: Ledger) -> list[int]:
    """Numbers of the front's trials, by rising CHAIR_S."""
    constraints = manifest.constraints(ledger.baseline)
    known = [(trial.number, trial.point) for trial in ledger.trials if constraints.met_by(trial)]
    members = front([point for _, point in known if point is not None])
    return [number for number, _ in (known[index] for index in members) if number is not None]
