"""What a search tells while it runs; a view that prints it as plain lines; the live one is in the report."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from kvtune.study.manifest import Manifest
from kvtune.study.pace import Pace
from kvtune.study.trials import Ledger, Trial, called
from kvtune.text import number_of

PLAIN_SECONDS = 15.0
"""Between two plain lines of progress."""

Stage = Callable[[str, int, int], None]
"""Says what is made ready, how much of it is, and of how much: 0 where that is not known."""


class View:
    """Shows nothing, and is what other views extend.

    A search enters :meth:`showing` once, then reports each trial as it starts, each caption, and each trial's end.
    """

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int, pace: Pace) -> Iterator[None]:
        """Show a search that has ``captions`` captions before it; ledger and pace change under the view."""
        yield

    @contextlib.contextmanager
    def making_ready(self) -> Iterator[Stage]:
        """Show what comes before the first caption."""
        yield lambda what, done, total: None

    def note(self, text: str) -> None:
        """Say something once."""

    def started(self, number: int | None, captions: int) -> None:
        """A trial (None: the baseline), of which there are ``captions`` captions already, is being captioned."""

    def caption(self, number: int | None) -> None:
        """A caption of this trial was written."""

    def worked(self) -> None:
        """The engine has gone on, by a step of captions that are in work."""

    def stopped(self, number: int, spared: int) -> None:
        """A trial was raced out; so many of its captions will not be written."""

    def ended(self, trial: Trial) -> None:
        """A trial, or the baseline, was judged or failed."""


class PlainView(View):
    """Lines for logs and pipes: each trial as it ends, and progress with an ETA every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextlib.contextmanager
    def making_ready(self) -> Iterator[Stage]:
        last = time.monotonic()

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            if total and (done == total or time.monotonic() - last >= PLAIN_SECONDS):
                last = time.monotonic()
                self.note(f"{what}: {done} of {total}")

        yield show

    @contextlib.contextmanager
    def showing(self, manifest: Manifest, ledger: Ledger, captions: int, pace: Pace) -> Iterator[None]:
        self._space = manifest.fingerprint.space
        self._manifest, self._ledger = manifest, ledger
        self._captions, self._written, self._pace = captions, 0, pace
        self._last = time.monotonic()
        self.note(f"{number_of(captions, 'caption')} to write, {number_of(ledger.finished, 'trial')} finished")
        yield

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def caption(self, number: int | None) -> None:
        self._written += 1

    def worked(self) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            self.note(", ".join(filter(None, [f"{self._written} of {self._captions} captions", self._pace.words()])))

    def stopped(self, number: int, spared: int) -> None:
        self._captions -= spared

    def ended(self, trial: Trial) -> None:
        if trial.point is None:
            self.note(f"trial {trial.number}: failed ({trial.reason})")
            return
        scores = f"CHAIR_S {trial.point[0]:.1f}, F1 {trial.point[1]:.1f}"
        point = {} if trial.number is None else self._space.searched(trial.params)
        parameters = " ".join(f"{key}={trial.params[key]:.4g}" for key in point)
        if trial.number is not None and self._space.alternatives.is_choice:
            parameters = f"{self._space.alternatives.chosen(trial.params)} {parameters}"
        front = self._manifest.constraints(self._ledger.baseline).front(self._ledger.trials)
        remark = ", on the front" if trial.number in front else ""
        if trial.state == "raced" and trial.metrics is not None:
            remark = f", raced out after {trial.metrics['images']} images by trial {trial.by}"
        self.note(f"{called(trial.number)}: {scores}{remark}" + (f"  ({parameters})" if parameters else ""))


class OneOfMany(PlainView):
    """The same lines for one of several searches that run side by side; captions are shown for all of them together."""

    def __init__(self, name: str, note: Callable[[str], None]) -> None:
        self._name, self._note = name, note

    def note(self, text: str) -> None:
        self._note(f"{self._name}: {text}")

    def worked(self) -> None:
        pass
