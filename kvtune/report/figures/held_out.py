"""What is left of the front on images that no search has seen."""

from typing import TYPE_CHECKING

from kvtune.analysis.result import Validated, Validation
from kvtune.report.figures.drawing import axis_label, column_figure, give_room, legend_below, style
from kvtune.report.figures.points import HOLLOW, error_bars, marker, number_points
from kvtune.report.roles import LOOKS, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def held_out_figure(found: Validation, chosen: int | None) -> "Figure":
    """Draw every validated setting on held-out images with 95 % intervals, joined to where tune images had put it.

    Parameters
    ----------
    chosen
        Number of the trial to mark as chosen, if any.
    """
    with style():
        figure, axes = column_figure()
        for role in LOOKS:
            label = LOOKS[role].legend
            for setting in found.settings:
                if _role(setting, chosen) == role:
                    _draw(axes, setting, role, label)
                    label = "_"  # name it once
        axes.plot([], [], ".-", color="#999999", markersize=3, linewidth=0.7, label="from tune images")
        axes.set_xlabel(f"{axis_label('chair_s')}; {found.subset.images} held-out images")
        axes.set_ylabel(axis_label("f1"))
        give_room(axes)
        legend_below(figure, axes)
        places = [(setting.number, setting.holdout.metrics) for setting in found.settings]
        numbered = [(number, now.chair_s, now.f1) for number, now in places if number is not None]
        drawn = [now for _, now in places] + [each.tune.metrics for each in found.settings if each.tune is not None]
        number_points(figure, axes, numbered, [(each.chair_s, each.f1) for each in drawn])
        return figure


def _role(setting: Validated, chosen: int | None) -> Role:
    if setting.number is not None and setting.number == chosen:
        return "chosen"
    return next(role for role in setting.roles if role in ("baseline", "published", "front"))


def _draw(axes: "Axes", setting: Validated, role: Role, label: str) -> None:
    look, now = LOOKS[role], setting.holdout.metrics
    if setting.tune is not None:
        before = setting.tune.metrics
        path = [before["chair_s"], now["chair_s"]], [before["f1"], now["f1"]]
        axes.plot(*path, "-", color=look.colour, linewidth=0.7, alpha=0.5, zorder=1.8)
        axes.plot(before["chair_s"], before["f1"], ".", color=look.colour, markersize=3, alpha=0.5, zorder=1.8)
    error_bars(axes, now, setting.holdout.intervals, "chair_s", "f1", look.colour)
    axes.plot(now["chair_s"], now["f1"], **marker(role), label=label, zorder=12 if role in HOLLOW else 5)
