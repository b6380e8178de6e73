"""The points of a study, drawn alike in every picture."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvtune.analysis.summary import StudySummary
from kvtune.chair import Rates
from kvtune.report.figures.drawing import halo
from kvtune.report.roles import LOOKS, Mark, Role, marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES: dict[Role, float] = {"chosen": 10, "baseline": 7, "published": 8, "front": 4.5, "complete": 3, "raced": 3}
"""Of markers, in points."""

HOLLOW: tuple[Role, ...] = ("baseline", "published")
"""Drawn hollow and larger than a trial, over all others, so that nothing is hidden under them."""

_FAINT: dict[Role, float] = {"complete": 0.55, "raced": 0.6}
_LABELS_AT_MOST = 4
_BETWEEN_LABELS = 1.0
"""Points around a number, so that two of them do not read as one."""


def draw_points(axes: "Axes", summary: StudySummary, chosen: int | None, across: str, up: str) -> None:
    """Draw baseline, published preset, chosen point, front and all other judged trials.

    Error bars are 95 % intervals of the named points. Points of the front that are tied with the chosen one are drawn
    with a white centre.

    Parameters
    ----------
    across, up
        Names of the rates on the axes.
    """
    points = marks(summary, chosen)
    tied = () if chosen is None else summary.by_number[chosen].ties
    for kind in LOOKS:
        having = [point for point in points if kind in point.roles]
        if kind == "front":
            having = [point for point in having if point.role != "chosen"]  # the star would cover the dot
            apart = [point for point in having if point.trial.number not in tied]
            level = [point for point in having if point.trial.number in tied]
            _draw_role(axes, kind, apart, across, up)
            _draw_role(axes, kind, level, across, up, label="front, tied with chosen", face="white")
        else:
            _draw_role(axes, kind, having, across, up)


def _draw_role(
    axes: "Axes",
    kind: Role,
    points: Sequence[Mark],
    across: str,
    up: str,
    label: str | None = None,
    face: str | None = None,
) -> None:
    if not points:
        return
    look = LOOKS[kind]
    if kind not in _FAINT:
        for point in points:
            error_bars(axes, point.scores, point.trial.intervals, across, up, look.colour)
    axes.plot(
        [point.scores[across] for point in points],
        [point.scores[up] for point in points],
        **marker(kind, face),
        alpha=_FAINT.get(kind, 1),
        label=label or look.legend,
        zorder=(12 if kind in HOLLOW else 2) + len(LOOKS) - list(LOOKS).index(kind),
    )


def marker(kind: Role, face: str | None = None) -> dict[str, Any]:
    """How the points of a role are drawn, as arguments of ``plot``; ``face`` is another colour within."""
    look, hollow = LOOKS[kind], kind in HOLLOW
    return {
        "linestyle": "",
        "marker": look.marker,
        "color": look.colour,
        "markersize": SIZES[kind],
        "markerfacecolor": "none" if hollow else face or look.colour,
        "markeredgecolor": "white" if kind == "chosen" else look.colour,
        "markeredgewidth": 1.2 if hollow else 0.9 if face else 0.6,
    }


def error_bars(
    axes: "Axes",
    rates: Rates,
    intervals: Mapping[str, Sequence[float]],
    across: str,
    up: str,
    colour: str,
) -> None:
    """Draw the 95 % intervals of one point, those of them that there are."""
    bars: dict[str, Any] = {}
    for bar, name in (("xerr", across), ("yerr", up)):
        if name in intervals:
            low, high = intervals[name]
            bars[bar] = [[max(0.0, rates[name] - low)], [max(0.0, high - rates[name])]]
    if bars:
        place = rates[across], rates[up]
        axes.errorbar(
            *place, **bars, fmt="none", ecolor=colour, elinewidth=0.5, alpha=0.5, zorder=1.5, label="_intervals"
        )


def number_points(
    figure: "Figure",
    axes: "Axes",
    points: Sequence[tuple[int, float, float]],
    others: Sequence[tuple[float, float]] = (),
) -> None:
    """Write trial numbers beside points, up and left of them if possible, where they cover neither each other nor a
    point.

    Parameters
    ----------
    points
        (trial number, across, up); points at one place share a label.
    others
        Further points, which have no number.
    """
    places: dict[tuple[float, float], list[int]] = defaultdict(list)
    for number, x, y in points:
        places[x, y].append(number)
    figure.draw_without_rendering()
    taken = {place: _around(axes, place) for place in {*places, *others}}
    labels: list[Any] = []
    for place, numbers in places.items():
        text = ", ".join(map(str, numbers[:_LABELS_AT_MOST]))
        if len(numbers) > _LABELS_AT_MOST:
            text += f", +{len(numbers) - _LABELS_AT_MOST}"
        obstacles = [box for other, box in taken.items() if other != place] + labels
        for offset, across, up in _BESIDE:
            label = axes.annotate(text, place, offset, textcoords="offset points", ha=across, va=up, fontsize=6)
            label.set(color="#004C7A", path_effects=halo(), zorder=25)
            box = label.get_window_extent().padded(_BETWEEN_LABELS * figure.dpi / 72)
            if not any(box.overlaps(other) for other in obstacles):
                labels.append(box)
                break
            label.remove()


_BESIDE = (
    ((-3, 2), "right", "bottom"),
    ((3, 2), "left", "bottom"),
    ((3, -2), "left", "top"),
    ((-3, -2), "right", "top"),
)
"""Where a number may stand: offset from its point in points, and which corner of it is there."""


def _around(axes: "Axes", place: tuple[float, float]) -> Any:
    """The box of a point's marker in the picture's pixels."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform(place)
    half = SIZES["front"] / 2 * axes.figure.dpi / 72
    return Bbox.from_extents(x - half, y - half, x + half, y + half)
