"""What a study asked and what came of it, as an append-only file.

``trials.jsonl``, the captions and the manifest are the study; ``study.db`` follows from them. One line an event::

    {"number": 0, "event": "asked", "params": {...}, "published": true, "sampler": {...}}
    {"number": 0, "event": "complete", "metrics": {...}, "scoring": "...", "captions": "..."}
    {"number": 5, "event": "raced", "metrics": {...}, "scoring": "...", "captions": "...", "by": 0}
    {"number": 3, "event": "failed", "reason": "..."}

``number`` is null for the baseline, which is never asked. ``params`` are all of the method's parameters, ``sampler``
what the sampler wants to know of the trial later (NSGA-II: its generation), ``scoring`` identifies scorer and ground
truth (:attr:`kvtune.study.scoring.Scoring.identity`), ``captions`` is the digest of the captions that were scored
(:func:`kvtune.study.caption_log.captions_sha256`), which older studies lack. A raced trial was stopped because the
trial ``by`` dominates it (:mod:`kvtune.statistics.racing`); its metrics are over the first ``metrics["images"]`` images
of the race.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StrictInt

from kvtune.chair import METRICS
from kvtune.errors import RequestError
from kvtune.files import write_text
from kvtune.schema import Document, Parameters, validated
from kvtune.statistics.front import Point
from kvtune.study.jsonl import LineWriter, each_line
from kvtune.text import json_text, quoted

RESTORE = "restore the file from a copy"
"""The cure where what a study cannot do without is damaged."""


def _recorded(metrics: dict[str, Any]) -> dict[str, Any]:
    for name in ("chair_s", "f1", "images"):
        if name not in metrics:
            raise ValueError(f"{name} is missing")
    for name, value in metrics.items():
        if name == "scorer":
            continue
        number = isinstance(value, int | float) and math.isfinite(value)
        if name == "images" and not (isinstance(value, int) and number and value > 0):
            raise ValueError(f"images must be a whole number above 0, not {quoted(value)}")
        if name in METRICS and not (number and value >= 0 and (METRICS[name].unit != "%" or value <= 100)):
            raise ValueError(f"{name} cannot be {quoted(value)}")
        if name not in METRICS and name != "images":
            raise ValueError(f"unknown metric {quoted(name)}")
    return metrics


Recorded = Annotated[dict[str, int | float | str | None], AfterValidator(_recorded)]
"""Scores as they were recorded; a metric that is younger than the study is not among them."""


class Asked(Document):
    """A trial was asked."""

    number: Annotated[StrictInt, Field(ge=0)]
    event: Literal["asked"]
    params: Parameters
    published: bool
    sampler: dict[str, JsonValue]


class Complete(Document):
    """A trial, or the baseline, was judged by all images."""

    number: Annotated[StrictInt, Field(ge=0)] | None
    event: Literal["complete"]
    metrics: Recorded
    scoring: str
    captions: str | None = None


class Raced(Document):
    """A trial was raced out."""

    number: Annotated[StrictInt, Field(ge=0)]
    event: Literal["raced"]
    metrics: Recorded
    scoring: str
    captions: str | None = None
    by: Annotated[StrictInt, Field(ge=0)]


class Failed(Document):
    """A trial failed."""

    number: Annotated[StrictInt, Field(ge=0)]
    event: Literal["failed"]
    reason: str


Event = Asked | Complete | Raced | Failed
_EVENTS: dict[str, type[Event]] = {"asked": Asked, "complete": Complete, "raced": Raced, "failed": Failed}


State = Literal["complete", "raced", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """A trial, or the baseline (``number`` None), as the ledger knows it."""

    number: int | None
    params: Parameters = field(default_factory=dict)
    published: bool = False
    sampler: dict[str, Any] = field(default_factory=dict)
    state: State = "running"
    metrics: dict[str, Any] | None = None
    scoring: str | None = None
    captions: str | None = None
    reason: str | None = None
    by: int | None = None

    @property
    def point(self) -> Point | None:
        """(CHAIR_S, F1) of a trial that was judged, on all images or, if it was raced out, on those it saw."""
        return None if self.metrics is None else (self.metrics["chair_s"], self.metrics["f1"])


def called(number: int | None) -> str:
    """What people call a trial: ``trial 7``; None is the ``baseline``."""
    return "baseline" if number is None else f"trial {number}"


class Ledger:
    """The events of a study, read.

    Attributes
    ----------
    baseline
        The baseline; running until it is judged.
    trials
        By number, without gaps.

    Raises
    ------
    KvtuneError
        If the file cannot be read.
    RequestError
        If an event is none or makes no sense; the message names the line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.baseline = Trial(None)
        self.trials: list[Trial] = []
        for number, line in enumerate(each_line(path), 1):
            self._apply(line, f"{path} line {number}")

    def __getitem__(self, number: int | None) -> Trial:
        return self.baseline if number is None else self.trials[number]

    @property
    def settings(self) -> list[Trial]:
        """The baseline, and all trials by number."""
        return [self.baseline, *self.trials]

    @property
    def judged(self) -> list[Trial]:
        """Those of them that have scores."""
        return [setting for setting in self.settings if setting.metrics is not None]

    @property
    def finished(self) -> int:
        """Finished trials: complete and raced ones; failed ones are not."""
        return sum(trial.state in ("complete", "raced") for trial in self.trials)

    @property
    def running(self) -> list[Trial]:
        """Trials that were asked and have no outcome yet."""
        return [trial for trial in self.trials if trial.state == "running"]

    def change(self, change: Callable[[Trial], Trial]) -> None:
        """Put changed trials in the place of the old ones, here and not on disk."""
        self.baseline, self.trials = change(self.baseline), [change(trial) for trial in self.trials]

    def write(self, path: Path) -> None:
        """Write all events anew, whole or not at all."""
        lines = [line for trial in self.settings for line in _lines(trial)]
        write_text(path, "".join(json_text(line) + "\n" for line in lines))

    def _apply(self, line: dict[str, Any], place: str) -> None:
        name = line.get("event")
        kind = _EVENTS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise RequestError(f"{place}: unknown event {quoted(name)}; there are {', '.join(_EVENTS)}")
        event = validated(kind, line, place)
        values = {key: getattr(event, key) for key in type(event).model_fields if key != "event"}
        number = event.number
        if isinstance(event, Asked):
            if number != len(self.trials):
                raise RequestError(f"{place}: trial {number} was asked where {len(self.trials)} comes next; {RESTORE}")
            self.trials.append(Trial(**values))
        elif number is None:
            self.baseline = replace(self.baseline, state=event.event, **values)
        elif number < len(self.trials) and values.get("by", 0) < len(self.trials):
            self.trials[number] = replace(self.trials[number], state=event.event, **values)
        else:
            raise RequestError(f"{place}: trial {max(number, values.get('by', 0))} was never asked; {RESTORE}")


class LedgerWriter(Ledger):
    """The events of a study while they are being written; a torn last line is cut off, each event reaches the disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._writer = LineWriter(path)

    def ask(self, trials: Iterable[Trial]) -> None:
        """Record that these trials were asked."""
        for trial in trials:
            self._append(_lines(replace(trial, state="running"))[0])
        self._writer.sync()

    def complete(self, number: int | None, metrics: dict[str, Any], scoring: str, captions: str | None = None) -> Trial:
        """Record the scores of a trial, or of the baseline, and the digest of the captions that they are of."""
        trial = replace(self[number], metrics=metrics, scoring=scoring, captions=captions)
        return self._outcome(replace(trial, state="complete"))

    def race_out(
        self, number: int, metrics: dict[str, Any], scoring: str, captions: str | None = None, *, by: int
    ) -> Trial:
        """Record that a trial was stopped because the trial ``by`` dominates it, with its scores so far."""
        trial = replace(self[number], metrics=metrics, scoring=scoring, captions=captions)
        return self._outcome(replace(trial, state="raced", by=by))

    def fail(self, number: int, reason: str) -> Trial:
        """Record that a trial's work failed."""
        return self._outcome(replace(self[number], state="failed", reason=reason))

    def rewrite(self, change: Callable[[Trial], Trial]) -> None:
        """Put changed trials in the place of the old ones, all or none of them on disk."""
        self.change(change)
        self.write(self.path)
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file that has taken the place of the one that was open."""
        self._writer.close()
        self._writer = LineWriter(self.path)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _outcome(self, trial: Trial) -> Trial:
        self._append(_lines(trial)[-1])
        self._writer.sync()
        return trial

    def _append(self, line: dict[str, Any]) -> None:
        self._writer.append(line)
        self._apply(line, str(self.path))


def _lines(trial: Trial) -> list[dict[str, Any]]:
    """The events that lead to a trial's state."""
    lines: list[dict[str, Any]] = []
    for name in ("asked", trial.state):
        if name != "running" and not (name == "asked" and trial.number is None):
            line = {key: getattr(trial, key, None) for key in _EVENTS[name].model_fields} | {"event": name}
            if line.get("captions", "") is None:
                del line["captions"]
            lines.append(line)
    return lines
