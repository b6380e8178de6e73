"""Several studies side by side: one table, one picture."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.report.document import trial_document
from kvtune.report.figures import PALETTE, column_figure, give_room, style
from kvtune.report.frames import trials_frame
from kvtune.report.roles import LOOKS, front_line, roles
from kvtune.report.table import OBJECTIVES, RATES, fitting, rate
from kvtune.search.summary import StudySummary, TrialSummary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


_LEGEND_WIDTH = 44
"""Characters of a line of the legend that fit below a column's picture."""


@dataclass(frozen=True)
class Compared:
    """One of the studies: what it found, and the trial that ``kvtune export`` would take (None for no trial)."""

    summary: StudySummary
    chosen: int | None

    @property
    def rows(self) -> list[TrialSummary]:
        """Baseline, published preset and chosen trial, those of them that there are."""
        trials = [t for t in self.summary.trials if t.published or t.number == self.chosen]
        return [*([self.summary.baseline] if self.summary.baseline else []), *trials]


def comparison_table(studies: Sequence[Compared], console: Console) -> RenderableType:
    """Return baseline, published preset and chosen trial of each study, with the hypervolume of its front."""
    ascii_only = console.options.ascii_only
    note = "" if len(_subsets(studies)) == 1 else "Different tune images: rates of different studies do not compare."
    layouts = [_table(studies, rates, ascii_only) for rates in (tuple(RATES), OBJECTIVES)]
    return Group(fitting(layouts, console), *([Text(), Text(note)] if note else []))


def comparison_figure(studies: Sequence[Compared]) -> "Figure":
    """Draw the front of each study in a colour of its own, its baseline as a square and its chosen point as a star."""
    with style():
        figure, axes = column_figure()
        for index, each in enumerate(studies):
            colour = PALETTE[index % len(PALETTE)]
            dashes = ("-", "--", ":")[index // len(PALETTE) % 3]
            front = [(x, y) for x, y in front_line(each.summary)]
            if front:
                axes.plot(*zip(*front, strict=True), dashes, color=colour, linewidth=1)
            members = [t for t in each.summary.trials if t.number in each.summary.front and t.number != each.chosen]
            _dots(axes, members, "o", colour, 3)
            _dots(axes, [t for t in each.summary.trials if t.number == each.chosen], "*", colour, 9)
            # Baselines of one model on the same images coincide: squares of growing size show each of them.
            _dots(
                axes,
                [each.summary.baseline] if each.summary.baseline else [],
                "s",
                colour,
                5 + 1.5 * index,
                hollow=True,
            )
            axes.plot([], [], dashes, color=colour, label=textwrap.fill(each.summary.study, _LEGEND_WIDTH))
        axes.plot([], [], "s", color="#555555", markersize=6, markerfacecolor="none", label="baseline")
        axes.plot([], [], "*", color="#555555", markersize=9, markeredgewidth=0, label="chosen")
        axes.set_xlabel("CHAIR$_S$ (%), lower is better")
        axes.set_ylabel("F1 (%), higher is better")
        give_room(axes)
        longest = max((len(each.summary.study) for each in studies), default=0)
        figure.legend(loc="outside lower center", ncols=2 if longest <= _LEGEND_WIDTH // 2 else 1, frameon=False)
        return figure


def comparison_frame(studies: Sequence[Compared]) -> "pd.DataFrame":
    """Return the rows of :func:`kvtune.report.frames.trials_frame` of all studies, with their models and methods."""
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
        ``kvtune pareto --json``; ``baseline``, ``published`` and ``chosen`` as its trials, null where there is none.
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
        "subset": summary.subset,
        "hypervolume": summary.hypervolume,
        "reference_point": summary.reference_point,
        "baseline": first([summary.baseline]),
        "published": first([t for t in summary.trials if t.published]),
        "chosen": first([t for t in summary.trials if t.number == each.chosen]),
    }


def _table(studies: Sequence[Compared], rates: Sequence[str], ascii_only: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("study", overflow="fold", max_width=34)
    for name in rates:
        arrow = "" if ascii_only else {"chair_s": " ↓", "f1": " ↑"}.get(name, "")
        table.add_column(RATES[name] + arrow, justify="right", no_wrap=True)
    table.add_column("words", justify="right", no_wrap=True)
    table.add_column("hyper-\nvolume", justify="right", no_wrap=True)
    for index, each in enumerate(studies):
        if index:
            table.add_row()
        volume = rate(each.summary.hypervolume)
        blank = [""] * (len(rates) + 1)
        table.add_row(Text(each.summary.study, style="bold"), *blank, _dashed(volume, ascii_only))
        for trial in each.rows:
            found = roles(each.summary, trial, each.chosen)
            look = LOOKS[found[0] if found else "complete"]
            words = [LOOKS[kind].label for kind in found if kind in ("chosen", "baseline", "published")]
            label = Text(" ").append(look.ascii_glyph if ascii_only else look.glyph, style=look.style)
            label.append(f" {'' if trial.number is None else f'{trial.number} '}{', '.join(words)}")
            values = [rate(getattr(trial, metric)) for metric in (*rates, "mean_words")]
            table.add_row(label, *(_dashed(value, ascii_only) for value in values), "")
    return table


def _dots(
    axes: Any, trials: Sequence[TrialSummary], marker: str, colour: str, size: float, hollow: bool = False
) -> None:
    axes.plot(
        [trial.chair_s for trial in trials],
        [trial.f1 for trial in trials],
        marker,
        color=colour,
        markersize=size,
        markerfacecolor="none" if hollow else colour,
        markeredgewidth=1 if hollow else 0,
        zorder=5,
    )


def _subsets(studies: Sequence[Compared]) -> Counter[str]:
    return Counter(str(each.summary.subset.get("sha256")) for each in studies)


def _dashed(text: str, ascii_only: bool) -> str:
    return text.replace("–", "-") if ascii_only else text
