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

_RING = 2.5
"""Points by which a marker or line is larger for each one that is drawn over it at the same place."""


def comparison_figure(studies: Sequence[tuple[StudySummary, int | None]]) -> "Figure":
    """Draw the front of each study in a colour of its own, its baseline as a square and its chosen point as a star.

    These two have their 95 % intervals as error bars. Baselines of one model on the same images coincide, and are one
    grey square. Other points of several studies at one place are drawn around each other, and so are their fronts where
    all of them is the same.

    Parameters
    ----------
    studies
        (what it found, number of the trial that ``kvtune export`` would take, if any).
    """
    with style():
        figure, axes = column_figure()
        baselines: dict[tuple[float | None, float | None], list[tuple[TrialSummary, str]]] = {}
        fronts = [front_line(summary) for summary, _ in studies]
        marked = [_places(summary, chosen) for summary, chosen in studies]
        for index, (summary, chosen) in enumerate(studies):
            colour = PALETTE[index % len(PALETTE)]
            dashes = ("-", "--", ":")[index // len(PALETTE) % 3]
            if front := fronts[index]:
                width = 1 + _RING * fronts[index + 1 :].count(front)
                axes.plot(*zip(*front, strict=True), dashes, color=colour, linewidth=width)
            for trial in summary.trials:
                if trial.number in marked[index]:
                    rings = _RING * sum(marked[index][trial.number] in later.values() for later in marked[index + 1 :])
                    marker, size = ("*", 9 + 2 * rings) if trial.number == chosen else ("o", 3 + rings)
                    _dots(axes, [trial], marker, colour, size)
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


def _places(summary: StudySummary, chosen: int | None) -> dict[int | None, tuple[float | None, float | None]]:
    """Where the front and the chosen point are, by number."""
    return {
        trial.number: (trial.rate("chair_s"), trial.rate("f1"))
        for trial in summary.trials
        if trial.number in summary.front or trial.number == chosen
    }


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
