"""Precision over recall, beside the baseline cut to its first sentences (KVSmooth, figure 4)."""

from typing import TYPE_CHECKING

import numpy as np

from kvtune.analysis.summary import StudySummary
from kvtune.report.figures.drawing import axis_label, column_figure, give_room, halo, legend_below, style
from kvtune.report.figures.points import draw_points
from kvtune.report.roles import LOOKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEPS = ((30.0, 10), (12.0, 5), (0.0, 2))
"""From how many points of recall in the picture lines of equal F1 are how many points apart."""

_WHOLE = 1.0
"""Points of recall and precision within which a cut baseline is as good as whole, and its number left out."""


def precision_recall_figure(summary: StudySummary, chosen: int | None) -> "Figure":
    """Draw all trials, and the baseline's captions cut to their first 1, 2, 3, ... sentences as a numbered curve.

    A setting that merely says less lies on the curve. Grey lines join points of equal F1.
    """
    with style():
        figure, axes = column_figure()
        draw_points(axes, summary, chosen, "recall", "precision")
        _draw_cut_baseline(axes, summary)
        axes.set_xlabel(axis_label("recall"))
        axes.set_ylabel(axis_label("precision"))
        give_room(axes)
        legend_below(figure, axes)
        if axes.lines:
            _draw_lines_of_f1(axes)
        return figure


def _draw_cut_baseline(axes: "Axes", summary: StudySummary) -> None:
    curve = summary.cut_baseline
    if len(curve) < 2:
        return
    axes.plot(
        [cut.recall for cut in curve],
        [cut.precision for cut in curve],
        ":.",
        color=LOOKS["baseline"].colour,
        linewidth=0.8,
        markersize=3,
        label="baseline cut to N sentences",
        zorder=1.8,
    )
    whole = curve[-1]
    for cut in curve:
        if max(abs(cut.recall - whole.recall), abs(cut.precision - whole.precision)) < _WHOLE:
            continue
        label = axes.annotate(
            str(cut.sentences), (cut.recall, cut.precision), (3, 2), textcoords="offset points", fontsize=6
        )
        label.set(color="#444444", path_effects=halo(), annotation_clip=True)


def _draw_lines_of_f1(axes: "Axes") -> None:
    """Draw precision over recall at equal F1: p = F r / (2 r - F), labelled where a line enters at the top."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    high = min(high, 101.0)
    step = next(step for least, step in _STEPS if right - left >= least)
    for f1 in range(step, 100, step):
        recall = np.linspace(max(left, f1 / 2 + 0.01), right, 400)
        precision = f1 * recall / (2 * recall - f1)
        inside = (precision >= low) & (precision <= high)
        if not inside.any():
            continue
        axes.plot(recall[inside], precision[inside], color="#C4C4C4", linewidth=0.5, zorder=1)
        first = np.flatnonzero(inside)[0]
        if precision[first] > high - (high - low) / 50:
            axes.annotate(f"F1 {f1}", (recall[first], high), (0, 1), textcoords="offset points", ha="center",
                          fontsize=5, color="#8A8A8A")  # fmt: skip
    axes.set(xlim=(left, right), ylim=(low, high))
