"""Several studies side by side, like a paper's main table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.result import Result
from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import OBJECTIVES
from kvtune.report.cells import LENGTH, RATES, heading, rate, with_interval
from kvtune.report.data.document import trial_document, validation_document
from kvtune.report.data.frames import trials_frame
from kvtune.report.roles import LOOKS, roles
from kvtune.report.terminal.tables import plain_table
from kvtune.report.terminal.trials import fitting, listed

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
        trials = [t for t in self.summary.trials if t.published or t.number == self.chosen]
        return [*([self.summary.baseline] if self.summary.baseline else []), *trials]

    def held_out(self, number: int | None) -> Result | None:
        """What held-out images said of a trial (None: the baseline), if they were asked."""
        found = self.summary.validation.of(number) if self.summary.validation else None
        return None if found is None else found.holdout


def comparison_table(studies: Sequence[Compared], console: Console) -> RenderableType:
    """Return baseline, published preset and chosen trial of each study, with 95 % intervals and the hypervolume.

    Held-out results stand beside those on tune images where any study was validated; on a console too narrow for that,
    in a table of their own.
    """
    draw = _Drawing(studies, console.options.ascii_only)
    held_out = OBJECTIVES if any(each.summary.validation for each in studies) else ()
    apart: list[RenderableType] = ["", draw.table((), held_out)] if held_out else []
    layouts: list[RenderableType] = [
        draw.table(RATES, held_out, intervals=RATES),
        draw.table(RATES, held_out, intervals=OBJECTIVES),
        draw.table(OBJECTIVES, held_out, intervals=OBJECTIVES),
        Group(draw.table(OBJECTIVES, (), intervals=OBJECTIVES), *apart),
    ]
    return Group(fitting(layouts, console), Text(), listed(_notes(studies)))


def _notes(studies: Sequence[Compared]) -> list[str]:
    notes = ["Under the rates: 95 % intervals."]
    if len(_subsets(studies)) > 1:
        notes.append("Different tune images: rates of different studies do not compare.")
    notes += [f"{each.summary.study}: {each.choice.reason}." for each in studies if each.chosen is None]
    missing = [
        f"trial {each.chosen} of {each.summary.study}"
        for each in studies
        if each.chosen is not None and each.held_out(each.chosen) is None
    ]
    if missing:
        notes.append(f"Chosen on tune images, and not validated on others: {', '.join(missing)}.")
    return notes


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
    return {"same_images": len(_subsets(studies)) == 1, "studies": [_study_document(each) for each in studies]}


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


class _Drawing:
    def __init__(self, studies: Sequence[Compared], ascii_only: bool) -> None:
        self.studies = studies
        self.ascii_only = ascii_only

    def table(self, rates: Sequence[str], held_out: Sequence[str], intervals: Sequence[str] = ()) -> Table:
        """The rates on tune images with those intervals, and the rates on held-out images, always with intervals."""
        table = plain_table()
        tune = (*rates, *LENGTH) if rates else ()
        table.add_column("study", overflow="fold", max_width=34)
        for names, above in ((tune, "tune\n" if held_out else ""), (held_out, "held-out\n")):
            for name in names:
                label = heading(name, ascii_only=self.ascii_only)
                table.add_column(above + label, justify="right", no_wrap=True)
        if rates:
            table.add_column("hyper-\nvolume", justify="right", no_wrap=True)
        for index, each in enumerate(self.studies):
            if index:
                table.add_row()
            blank = [""] * (len(tune) + len(held_out))
            volume = [*blank, rate(each.summary.hypervolume)] if rates else []
            table.add_row(Text(each.summary.study, style="bold"), *volume)
            for trial in each.rows:
                table.add_row(self._name(each, trial), *self._cells(each, trial, tune, held_out, intervals))
        return table

    def _name(self, each: Compared, trial: TrialSummary) -> Text:
        found = roles(each.summary, trial, each.chosen)
        look = LOOKS[found[0] if found else "complete"]
        words = [LOOKS[kind].label for kind in found if kind in ("chosen", "baseline", "published")]
        label = Text(" ").append(look.ascii_glyph if self.ascii_only else look.glyph, style=look.style)
        return label.append(f" {'' if trial.number is None else f'{trial.number} '}{', '.join(words)}")

    def _cells(
        self,
        each: Compared,
        trial: TrialSummary,
        rates: Sequence[str],
        held_out: Sequence[str],
        intervals: Sequence[str],
    ) -> list[str]:
        cells = [
            with_interval(trial.rate(name), trial.intervals.get(name) if name in intervals else None) for name in rates
        ]
        found = each.held_out(trial.number)
        for name in held_out:
            cells.append(with_interval(found.metrics[name], found.intervals.get(name)) if found else rate(None))
        return [*cells, ""] if rates else cells


def _subsets(studies: Sequence[Compared]) -> Counter[str]:
    return Counter(each.summary.subset.sha256 for each in studies)
