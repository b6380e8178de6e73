"""The fronts of several studies in one picture."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.report.figures.drawing import (
    PALETTE,
    axis_label,
    column_figure,
    drawn_text,
    give_room,
    legend_below,
    style,
)
from kvtune.report.figures.points import error_bars
from kvtune.report.roles import front_line
from kvtune.text import number_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND_WIDTH = 44
"""Characters of a line of the legend that fit below a column's picture."""

_SHARED = "#555555"
"""Colour of what is of no study alone."""


def comparison_figure(studies: Sequence[tuple[StudySummary, int | None]]) -> "Figure":
    """Draw the front of each study in a colour of its own, its baseline as a square and its chosen point as a star.

    These two have their 95 % intervals as error bars. Baselines of one model on the same images coincide, and are one
    grey square.

    Parameters
    ----------
    studies
        (what it found, number of the trial that ``kvtune export`` would take, if any).
    """
    with style():
        figure, axes = column_figure()
        baselines: dict[tuple[float | None, float | None], list[tuple[TrialSummary, str]]] = {}
        for index, (summary, chosen) in enumerate(studies):
            colour = PALETTE[index % len(PALETTE)]
            dashes = ("-", "--", ":")[index // len(PALETTE) % 3]
            front = front_line(summary)
            if front:
                axes.plot(*zip(*front, strict=True), dashes, color=colour, linewidth=1)
            members = [trial for trial in summary.trials if trial.number in summary.front and trial.number != chosen]
            _dots(axes, members, "o", colour, 3)
            _dots(axes, [trial for trial in summary.trials if trial.number == chosen], "*", colour, 9)
            _bars(axes, [trial for trial in summary.trials if trial.number == chosen], colour)
            if summary.baseline:
                point = (summary.baseline.rate("chair_s"), summary.baseline.rate("f1"))
                baselines.setdefault(point, []).append((summary.baseline, colour))
            axes.plot([], [], dashes, color=colour, label=textwrap.fill(drawn_text(summary.study), _LEGEND_WIDTH))
        for shared in baselines.values():
            baseline, colour = shared[0] if len(shared) == 1 else (shared[0][0], _SHARED)
            _dots(axes, [baseline], "s", colour, 6, hollow=True)
            _bars(axes, [baseline], colour)
        axes.plot([], [], "s", color=_SHARED, markersize=6, markerfacecolor="none", label="baseline")
        axes.plot([], [], "*", color=_SHARED, markersize=9, markeredgewidth=0, label="chosen")
        counts = {summary.subset.images for summary, _ in studies}
        images = number_of(counts.pop(), "tune image") if len(counts) == 1 else "tune images"
        axes.set_xlabel(f"{axis_label('chair_s')}; {images}")
        axes.set_ylabel(axis_label("f1"))
        give_room(axes)
        legend_below(figure, axes)
        return figure


def _bars(axes: Any, trials: Sequence[TrialSummary], colour: str) -> None:
    for trial in trials:
        if trial.scores is not None:
            error_bars(axes, trial.scores, trial.intervals, "chair_s", "f1", colour)


def _dots(
    axes: Any, trials: Sequence[TrialSummary], marker: str, colour: str, size: float, hollow: bool = False
) -> None:
    axes.plot(
        [trial.rate("chair_s") for trial in trials],
        [trial.rate("f1") for trial in trials],
        marker,
        color=colour,
        markersize=size,
        markerfacecolor="none" if hollow else colour,
        markeredgewidth=1 if hollow else 0,
        zorder=5,
    )
