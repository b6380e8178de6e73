"""Several studies side by side, as JSON and as pandas data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvtune.analysis.result import Result
from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.report.data.document import trial_document, validation_document
from kvtune.report.data.frames import trials_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Compared:
    """One of the studies: what it found, and what ``kvtune export`` would take."""

    summary: StudySummary
    choice: Choice

    @property
    def chosen(self) -> int | None:
        """The trial that ``kvtune export`` would take, if any."""
        return self.choice.trial

    @property
    def rows(self) -> list[TrialSummary]:
        """Baseline, published preset and chosen trial, those of them that there are."""
        return [t for t in self.summary.settings if t.number is None or t.published or t.number == self.chosen]

    def held_out(self, number: int | None) -> Result | None:
        """What held-out images said of a trial (None: the baseline), if they were asked."""
        found = self.summary.validation.of(number) if self.summary.validation else None
        return None if found is None else found.holdout


def same_images(studies: Sequence[Compared]) -> bool:
    """Whether all studies have the same tune images, so that their rates compare."""
    return len({each.summary.subset.sha256 for each in studies}) == 1


def comparison_frame(studies: Sequence[Compared]) -> "pd.DataFrame":
    """The rows of :func:`kvtune.report.data.frames.trials_frame` of all studies, with their models and methods."""
    import pandas as pd

    frames = []
    for each in studies:
        frame = trials_frame(each.summary, each.chosen)
        frame.insert(1, "model", each.summary.model)
        frame.insert(2, "method", each.summary.method)
        frames.append(frame)
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def comparison_document(studies: Sequence[Compared]) -> dict[str, Any]:
    """Return what ``kvtune compare --json`` prints.

    Keys
    ----
    same_images
        Whether all studies have the same tune subset, so that their rates compare.
    studies
        A list of ``study``, ``model``, ``method``, ``subset``, ``hypervolume`` and ``reference_point`` as in
        ``kvtune pareto --json``; ``baseline``, ``published`` and ``chosen`` as its trials, null where there is none;
        ``validation`` as there.
    """
    return {"same_images": same_images(studies), "studies": [_study_document(each) for each in studies]}


def _study_document(each: Compared) -> dict[str, Any]:
    summary = each.summary

    def first(trials: Sequence[TrialSummary | None]) -> dict[str, Any] | None:
        return next((trial_document(trial) for trial in trials if trial is not None), None)

    return {
        "study": summary.study,
        "model": summary.model,
        "method": summary.method,
        "subset": summary.subset.model_dump(),
        "hypervolume": summary.hypervolume,
        "reference_point": summary.reference_point,
        "baseline": first([summary.baseline]),
        "published": first([t for t in summary.trials if t.published]),
        "chosen": first([t for t in summary.trials if t.number == each.chosen]),
        "validation": validation_document(summary.validation),
    }
