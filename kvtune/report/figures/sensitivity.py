"""How CHAIR_S and F1 depend on each parameter (KVSmooth, figures 5 to 7)."""

from typing import TYPE_CHECKING

from kvtune.analysis.sensitivity import Sensitivity, Sweep
from kvtune.chair import OBJECTIVES
from kvtune.report.figures.drawing import COLUMN_WIDTH, PALETTE, axis_label, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 1.15
"""Inches."""

_LOGARITHMIC_FROM = 16.0
"""Times that the largest value of a parameter is the smallest, from where the values are drawn on a logarithm."""


def sensitivity_figure(found: Sensitivity) -> "Figure":
    """Draw CHAIR_S (left) and F1 (right) over each parameter with 95 % bands, beside the baseline and the held value.

    All pictures of a rate have one scale, so that a parameter that matters is steeper than one that does not.
    """
    from matplotlib.figure import Figure

    with style():
        count = len(found.sweeps)
        figure = Figure(figsize=(COLUMN_WIDTH, _ROW * count + 0.5), layout="constrained")
        grid = figure.subplots(count, len(OBJECTIVES), sharey="col", sharex="row", squeeze=False)
        for row, sweep in zip(grid, found.sweeps, strict=True):
            for axes, metric, colour in zip(row, OBJECTIVES, PALETTE, strict=False):
                _draw(axes, sweep, metric, colour, found.baseline[metric])
        for axes, metric in zip(grid[0], OBJECTIVES, strict=True):
            axes.set_title(axis_label(metric, ",\n"), fontsize=8)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, handlelength=1.6)
        return figure


def _draw(axes: "Axes", sweep: Sweep, metric: str, colour: str, baseline: float) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    values = [point.value for point in sweep.points]
    low, high = zip(*(point.intervals[metric] for point in sweep.points), strict=True)
    axes.fill_between(values, low, high, color=colour, alpha=0.18, linewidth=0, label="95 % interval")
    axes.plot(values, [point.metrics[metric] for point in sweep.points], ".-", color=colour, linewidth=1, markersize=4)
    axes.axhline(baseline, color="#000000", linewidth=0.7, linestyle=":", label="baseline")
    axes.axvline(sweep.held, color="#777777", linewidth=0.7, linestyle="--", label="held value")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel(sweep.parameter, fontsize=7, labelpad=1)
    if values[0] > 0 and values[-1] / values[0] >= _LOGARITHMIC_FROM:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=all(isinstance(value, int) for value in values)))
