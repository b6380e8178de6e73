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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEGEND_WIDTH = 44
"""Characters of a line of the legend that fit below a column's picture."""


def comparison_figure(studies: Sequence[tuple[StudySummary, int | None]]) -> "Figure":
    """Draw the front of each study in a colour of its own, its baseline as a square and its chosen point as a star.

    These two have their 95 % intervals as error bars.

    Parameters
    ----------
    studies
        (what it found, number of the trial that ``kvtune export`` would take, if any).
    """
    with style():
        figure, axes = column_figure()
        for index, (summary, chosen) in enumerate(studies):
            colour = PALETTE[index % len(PALETTE)]
            dashes = ("-", "--", ":")[index // len(PALETTE) % 3]
            front = front_line(summary)
            if front:
                axes.plot(*zip(*front, strict=True), dashes, color=colour, linewidth=1)
            members = [trial for trial in summary.trials if trial.number in summary.front and trial.number != chosen]
            _dots(axes, members, "o", colour, 3)
            _dots(axes, [trial for trial in summary.trials if trial.number == chosen], "*", colour, 9)
            # Baselines of one model on the same images coincide: squares of growing size show each of them.
            baseline = [summary.baseline] if summary.baseline else []
            _dots(axes, baseline, "s", colour, 5 + 1.5 * index, hollow=True)
            for trial in [*baseline, *(trial for trial in summary.trials if trial.number == chosen)]:
                if trial.scores is not None:
                    error_bars(axes, trial.scores, trial.intervals, "chair_s", "f1", colour)
            axes.plot([], [], dashes, color=colour, label=textwrap.fill(drawn_text(summary.study), _LEGEND_WIDTH))
        axes.plot([], [], "s", color="#555555", markersize=6, markerfacecolor="none", label="baseline")
        axes.plot([], [], "*", color="#555555", markersize=9, markeredgewidth=0, label="chosen")
        axes.set_xlabel(axis_label("chair_s"))
        axes.set_ylabel(axis_label("f1"))
        give_room(axes)
        legend_below(figure, axes)
        return figure


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
