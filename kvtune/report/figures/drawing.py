"""How all pictures look, and how they are written."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.chair import METRICS
from kvtune.files import write_bytes
from kvtune.report.roles import SMALLEST_SPAN
from kvtune.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.5
"""Inches: the column of a two-column paper."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, but for yellow, which is too light for lines."""

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


def axis_label(name: str, between: str = ", ") -> str:
    """Return what an axis says of a metric: its name, its unit and, of an objective, which way is better."""
    metric = METRICS[name]
    label = re.sub(r"_(\w)$", r"$_\1$", metric.label) + (" (%)" if metric.unit == "%" else "")
    return f"{label}{between}{metric.better} is better" if metric.objective else label


def drawn_text(text: str) -> str:
    """Return text that a picture shows as it is: no mathematics between dollar signs, control characters as escapes."""
    return visible(text).replace("$", r"\$")


def give_room(axes: "Axes") -> None:
    """Leave room for numbers at the edge, and show a part of the scale where there is but one point, or none."""
    if not axes.has_data():
        axes.set(xlim=(0, 100), ylim=(0, 100))
        return
    axes.margins(0.09)
    axes.autoscale_view()
    for get, put in ((axes.get_xlim, axes.set_xlim), (axes.get_ylim, axes.set_ylim)):
        low, high = get()
        if high - low < SMALLEST_SPAN:
            middle = (low + high) / 2
            put(middle - SMALLEST_SPAN / 2, middle + SMALLEST_SPAN / 2)


def legend_below(figure: "Figure", axes: "Axes") -> None:
    """Name what was drawn below the picture, in as many columns as fit, or say in it that there is nothing yet."""
    if not axes.get_legend_handles_labels()[0]:
        nothing_yet(axes)
        return
    if any(str(bars.get_label()).startswith("_") for bars in axes.containers):  # error bars without a name of their own
        axes.plot([], [], "+", color="#555555", markersize=9, markeredgewidth=0.6, label="95 % intervals")
    for columns in (3, 2, 1):
        legend = figure.legend(
            loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.3, columnspacing=1.0
        )
        figure.draw_without_rendering()
        if legend.get_window_extent().width <= figure.bbox.width or columns == 1:
            return
        legend.remove()


def nothing_yet(axes: "Axes") -> None:
    """Say in an empty picture why it is empty."""
    axes.text(0.5, 0.5, "no trial is judged yet", transform=axes.transAxes, ha="center", color="#666666")


def halo() -> list[Any]:
    """A white rim that keeps small text legible over lines and points."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=1.5, foreground="white")]


def save_pictures(figure: "Figure", stem: Path, title: str) -> list[Path]:
    """Write ``figure`` as ``STEM.png`` and ``STEM.svg``; return the paths."""
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    for path in paths:
        save_figure(figure, path, title)
    return paths


def save_figure(figure: "Figure", path: Path, title: str) -> None:
    """Write ``figure`` as the format that the suffix of ``path`` names; the file is whole or not there."""
    data = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    dates = {"Date": None} if kind == "svg" else {}
    with style():
        figure.savefig(data, format=kind, dpi=300, metadata={"Title": visible(title), **dates})
    write_bytes(path, data.getvalue())
