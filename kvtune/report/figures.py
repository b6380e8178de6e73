"""Pictures for a paper's column: the front, and the hypervolume over trials."""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.files import write_bytes
from kvtune.report.overlay import OverlayPoint
from kvtune.report.roles import LOOKS, OVERLAY_LOOK, Mark, Role, front_line, marks
from kvtune.search.front import hypervolume
from kvtune.search.summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.5
"""Inches: the column of a two-column paper."""

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "svg.hashsalt": "kvtune",  # the same study gives the same file
}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, but for yellow, which is too light for lines."""

_SIZES: dict[Role, float] = {"chosen": 10, "baseline": 7, "published": 8, "front": 4, "complete": 3, "raced": 3}
_HOLLOW: tuple[Role, ...] = ("baseline", "published")
_LABELS_AT_MOST = 4


def front_figure(summary: StudySummary, chosen: int | None, overlays: Sequence[OverlayPoint] = ()) -> "Figure":
    """Draw all trials, the front as a staircase, baseline, published preset and chosen point.

    Baseline and published preset are drawn hollow and larger than a trial, so that nothing is hidden under them; front
    points carry their trial numbers where there is room. Error bars are 95 % intervals of the named points.
    """
    with style():
        figure, axes = column_figure()
        points = marks(summary, chosen)
        for kind in LOOKS:
            hidden: tuple[Role, ...] = ("chosen",) if kind == "front" else ()  # the star would cover the dot
            _draw_role(axes, kind, [point for point in points if kind in point.roles and point.role not in hidden])
        corners = front_line(summary)
        if len(corners) > 1:
            axes.plot(*_columns(corners), color=LOOKS["front"].colour, linewidth=1, zorder=2)
        _draw_overlays(axes, overlays)
        subset = summary.subset.get("images")
        axes.set_xlabel("CHAIR$_S$ (%), lower is better" + (f"; {subset} images" if subset else ""))
        axes.set_ylabel("F1 (%), higher is better")
        give_room(axes)
        _draw_cut_baseline(axes, summary)
        _number_front(figure, axes, summary)
        if points or overlays:
            figure.legend(loc="outside lower center", ncols=3, frameon=False, handletextpad=0.3, columnspacing=1.0)
        else:
            axes.text(0.5, 0.5, "no trial is judged yet", transform=axes.transAxes, ha="center", color="#666666")
        return figure


def hypervolume_figure(summary: StudySummary) -> "Figure":
    """Draw how the hypervolume of the complete trials grew, in percent of the box from the study's reference point."""
    from matplotlib.ticker import MaxNLocator

    numbers, volumes = hypervolumes(summary)
    with style():
        figure, axes = column_figure(height=2.2)
        axes.step(numbers, volumes, where="post", color=LOOKS["front"].colour, linewidth=1.2)
        axes.plot(numbers, volumes, ".", color=LOOKS["front"].colour, markersize=3)
        axes.set_xlabel("trial")
        axes.set_ylabel("hypervolume (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not numbers:
            axes.text(0.5, 0.5, "no trial is judged yet", transform=axes.transAxes, ha="center", color="#666666")
        return figure


def hypervolumes(summary: StudySummary) -> tuple[list[int], list[float]]:
    """Return the numbers of the complete trials and the hypervolume up to each; nothing before there is a baseline."""
    reference = summary.reference_point
    numbers: list[int] = []
    volumes: list[float] = []
    points: list[tuple[float, float]] = []
    for mark in sorted(marks(summary, None), key=lambda mark: mark.trial.number or 0):
        if reference and mark.trial.number is not None and mark.trial.state == "complete":
            points.append((mark.x, mark.y))
            numbers.append(mark.trial.number)
            volumes.append(hypervolume(points, (reference["chair_s"], reference["f1"])))
    return numbers, volumes


def save_figure(figure: "Figure", path: Path, title: str) -> None:
    """Write ``figure`` as the format that the suffix of ``path`` names; the file is whole or not there."""
    data = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    dates = {"Date": None} if kind == "svg" else {}
    with style():
        figure.savefig(data, format=kind, dpi=300, metadata={"Title": title, **dates})
    write_bytes(path, data.getvalue())


@contextmanager
def style() -> Iterator[None]:
    """Make what is drawn inside look like all pictures here."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def column_figure(height: float = 3.0) -> tuple["Figure", "Axes"]:
    """Return an empty figure as wide as a column, ``height`` in inches; it belongs to no window and no pyplot state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_role(axes: "Axes", kind: Role, points: Sequence[Mark]) -> None:
    if not points:
        return
    look = LOOKS[kind]
    if kind not in ("complete", "raced"):
        _error_bars(axes, points, look.colour)
    hollow = kind in _HOLLOW
    axes.plot(
        [point.x for point in points],
        [point.y for point in points],
        look.marker,
        color=look.colour,
        markersize=_SIZES[kind],
        markerfacecolor="none" if hollow else look.colour,
        markeredgecolor="white" if kind == "chosen" else look.colour,
        markeredgewidth=1.2 if hollow else 0.6,
        alpha=0.55 if kind == "complete" else 1,
        label=look.label,
        zorder=(12 if hollow else 2) + len(LOOKS) - list(LOOKS).index(kind),
    )


def _error_bars(axes: "Axes", points: Sequence[Mark], colour: str) -> None:
    for point in points:
        bars: dict[str, Any] = {}
        for key, name, value in (("xerr", "chair_s", point.x), ("yerr", "f1", point.y)):
            if name in point.trial.intervals:
                low, high = point.trial.intervals[name]
                bars[key] = [[max(0.0, value - low)], [max(0.0, high - value)]]
        if bars:
            axes.errorbar(point.x, point.y, **bars, fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.5, zorder=1.5)


def _draw_cut_baseline(axes: "Axes", summary: StudySummary) -> None:
    """Draw the curve of the baseline cut to 1, 2, 3, ... sentences, as far as it runs through the picture."""
    curve = summary.cut_baseline
    if len(curve) < 2:
        return
    limits = axes.get_xlim(), axes.get_ylim()
    colour = LOOKS["baseline"].colour
    axes.plot(
        [cut.chair_s for cut in curve],
        [cut.f1 for cut in curve],
        ":.",
        color=colour,
        linewidth=0.7,
        markersize=2,
        label="baseline cut short",
        zorder=1.8,
    )
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
            label = axes.annotate(point.label, (point.x, point.y), (4, -7), textcoords="offset points", fontsize=6)
            label.set(color="#00694D", path_effects=_halo())


def give_room(axes: "Axes") -> None:
    """Let a single point not be stretched over the whole picture, and leave room for the numbers at the edge."""
    if not axes.has_data():
        axes.set(xlim=(0, 100), ylim=(0, 100))
        return
    axes.margins(0.09)
    axes.autoscale_view()
    for get, put in ((axes.get_xlim, axes.set_xlim), (axes.get_ylim, axes.set_ylim)):
        low, high = get()
        if high - low < 2:
            put((low + high) / 2 - 1, (low + high) / 2 + 1)


def _number_front(figure: "Figure", axes: "Axes", summary: StudySummary) -> None:
    """Write trial numbers up and left of the front's points, where no other point can be, where there is room."""
    tied: dict[tuple[float, float], list[int]] = defaultdict(list)
    for mark in marks(summary, None):
        if "front" in mark.roles and mark.trial.number is not None:
            tied[mark.x, mark.y].append(mark.trial.number)
    figure.draw_without_rendering()
    taken: list[Any] = []
    for point, numbers in tied.items():
        text = ", ".join(map(str, numbers[:_LABELS_AT_MOST]))
        if len(numbers) > _LABELS_AT_MOST:
            text += f", +{len(numbers) - _LABELS_AT_MOST}"
        label = axes.annotate(
            text, point, (-3, 2), textcoords="offset points", ha="right", va="bottom", fontsize=6, color="#004C7A"
        )
        label.set_path_effects(_halo())
        place = label.get_window_extent()
        if any(place.overlaps(other) for other in taken):
            label.remove()
        else:
            taken.append(place)


def _halo() -> list[Any]:
    """A white rim that keeps small text legible over lines and points."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
