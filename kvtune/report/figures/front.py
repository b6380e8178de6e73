"""The trade-off: CHAIR_S across, F1 up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvtune.analysis.summary import StudySummary
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.figures.drawing import axis_label, column_figure, drawn_text, give_room, halo, legend_below, style
from kvtune.report.figures.points import draw_points, number_points
from kvtune.report.roles import LOOKS, OVERLAY_LOOK, best_cut, cut_line, front_line, marks
from kvtune.text import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front_figure(summary: StudySummary, chosen: int | None, overlays: Sequence[OverlayPoint] = ()) -> "Figure":
    """Draw all trials, the front as a staircase with its trial numbers, other methods and the cut baseline.

    The cut baseline is a staircase too, drawn as far as it runs through the picture of the others and its best F1.
    """
    with style():
        figure, axes = column_figure()
        draw_points(axes, summary, chosen, "chair_s", "f1")
        corners = front_line(summary)
        if len(corners) > 1:
            axes.plot(*zip(*corners, strict=True), color=LOOKS["front"].colour, linewidth=1, zorder=2)
        _draw_overlays(axes, overlays)
        axes.set_xlabel(f"{axis_label('chair_s')}; {number_of(summary.subset.images, 'tune image')}")
        axes.set_ylabel(axis_label("f1"))
        best = best_cut(summary)
        if best is not None:
            axes.plot(best.chair_s, best.f1, alpha=0)  # makes room for it
        give_room(axes)
        _draw_cut_baseline(axes, summary)
        legend_below(figure, axes)
        points = marks(summary, chosen)
        members = [mark for mark in points if "front" in mark.roles]
        members.sort(key=lambda mark: mark.trial.number != chosen)  # its number is never left out
        numbered = [(mark.trial.number or 0, mark.x, mark.y) for mark in members]
        number_points(figure, axes, numbered, [(mark.x, mark.y) for mark in points])
        return figure


def _draw_cut_baseline(axes: "Axes", summary: StudySummary) -> None:
    curve = summary.cut_baseline
    if len(curve) < 2:
        return
    limits = axes.get_xlim(), axes.get_ylim()
    look: dict[str, Any] = {"color": LOOKS["baseline"].colour, "linewidth": 0.7, "zorder": 1.8}
    axes.plot(*zip(*cut_line(summary), strict=True), ":", **look)
    axes.plot([cut.chair_s for cut in curve], [cut.f1 for cut in curve], ".", markersize=2.5, **look)
    axes.plot([], [], ":.", markersize=2.5, label="baseline cut short", **look)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_overlays(axes: "Axes", overlays: Sequence[OverlayPoint]) -> None:
    for kind in dict.fromkeys(point.kind for point in overlays):
        group = [point for point in overlays if point.kind == kind]
        axes.plot(
            [point.x for point in group],
            [point.y for point in group],
            OVERLAY_LOOK.marker if group[0].reported else "d",
            color=OVERLAY_LOOK.colour,
            markersize=5,
            markerfacecolor="none",
            markeredgewidth=0.9,
            label=kind,
            zorder=10,
        )
        for point in group:
            text = drawn_text(point.label)
            label = axes.annotate(text, (point.x, point.y), (4, -7), textcoords="offset points", fontsize=6)
            label.set(color="#00694D", path_effects=halo())
