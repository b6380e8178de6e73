"""How the front grew."""

from typing import TYPE_CHECKING, Any

from kvtune.analysis.summary import StudySummary
from kvtune.report.figures.drawing import column_figure, legend_below, nothing_yet, style
from kvtune.report.roles import LOOKS, marks
from kvtune.statistics.hypervolume import hypervolume

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def hypervolume_figure(summary: StudySummary) -> "Figure":
    """Draw the hypervolume of the complete trials up to each, in percent of the box from the study's reference point.

    Where it was computed, the last one's estimate less the luck of its front is drawn with its 95 % interval.
    """
    from matplotlib.ticker import MaxNLocator

    numbers, volumes = hypervolumes(summary)
    colour = LOOKS["front"].colour
    with style():
        figure, axes = column_figure(height=2.2)
        axes.step(numbers, volumes, where="post", color=colour, linewidth=1.2, label="the front up to each trial")
        axes.plot(numbers, volumes, ".", color=colour, markersize=3)
        axes.set_xlabel("trial")
        axes.set_ylabel("hypervolume (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        estimate = summary.hypervolume_estimate
        if numbers and estimate is not None:
            low, high = estimate.interval
            bar = [[max(0.0, estimate.corrected - low)], [max(0.0, high - estimate.corrected)]]
            label = "less the luck of its front, with 95 % interval"
            looks: dict[str, Any] = {"color": "#D55E00", "markersize": 3.5, "elinewidth": 0.8}
            axes.errorbar(numbers[-1], estimate.corrected, bar, fmt="o", label=label, **looks)
        if numbers:
            legend_below(figure, axes)
        else:
            nothing_yet(axes)
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
