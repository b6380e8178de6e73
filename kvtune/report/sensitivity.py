"""How a study's scores depend on each parameter: tables and a picture."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.report.figures import COLUMN_WIDTH, PALETTE, style
from kvtune.report.table import number, rate
from kvtune.search.claims import LABELS
from kvtune.search.sensitivity import Sensitivity, Sweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def sensitivity_view(found: Sensitivity) -> RenderableType:
    """Return a table for each parameter and what matters most."""
    held = ", ".join(f"{name} {number(value)}" for name, value in found.around.items())
    parts: list[RenderableType] = [
        Text(f"{found.study}: one parameter varied around trial {found.trial} ({found.rule}): {held}"),
    ]
    for sweep in found.sweeps:
        parts += [Text(), _table(sweep)]
    parts.append(Text())
    if found.importance is None:
        parts.append(Text("Importance: too few trials"))
    for objective, shares in (found.importance or {}).items():
        ranked = sorted(shares.items(), key=lambda share: -share[1])
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
        parts.append(Text(f"Importance for {LABELS[objective]} (PED-ANOVA): {told}"))
    return Group(*parts)


def sensitivity_figure(found: Sensitivity) -> "Figure":
    """Draw CHAIR_S and F1 over each parameter with 95 % bands; the held value and the baseline are lines."""
    from matplotlib.figure import Figure

    with style():
        count = len(found.sweeps)
        figure = Figure(figsize=(COLUMN_WIDTH, 1.6 * count + 0.3), layout="constrained")
        for axes, sweep in zip(figure.subplots(count, 1, squeeze=False)[:, 0], found.sweeps, strict=True):
            values = [point.value for point in sweep.points]
            for colour, (metric, label) in zip(PALETTE, LABELS.items(), strict=False):
                axes.plot(
                    values,
                    [point.metrics[metric] for point in sweep.points],
                    ".-",
                    color=colour,
                    linewidth=1,
                    label=label.replace("CHAIR_S", "CHAIR$_S$"),
                )
                bounds = [point.intervals[metric] for point in sweep.points]
                axes.fill_between(
                    values,
                    [low for low, _ in bounds],
                    [high for _, high in bounds],
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
                axes.axhline(found.baseline[metric], color=colour, linewidth=0.6, linestyle=":")
            axes.axvline(sweep.held, color="#999999", linewidth=0.6, linestyle="--")
            axes.set_xlabel(sweep.parameter)
            axes.set_ylabel("%")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
        return figure


def sensitivity_frame(found: Sensitivity) -> "pd.DataFrame":
    """Return one row a value: ``parameter``, ``value``, ``trial``, scores, intervals as NAME_low and NAME_high."""
    import pandas as pd

    rows = []
    for sweep in found.sweeps:
        for point in sweep.points:
            row = {"parameter": sweep.parameter, "value": point.value, "trial": point.trial, **point.metrics}
            for name, (low, high) in point.intervals.items():
                row |= {f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows).astype({"trial": "Int64"})


def _table(sweep: Sweep) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(sweep.parameter, justify="right", no_wrap=True)
    for heading in (*LABELS.values(), "words"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for point in sweep.points:
        cells = [number(point.value)]
        for metric in LABELS:
            low, high = point.intervals[metric]
            cells.append(f"{rate(point.metrics[metric])} ({low:.1f} to {high:.1f})")
        cells.append(rate(point.metrics["mean_words"]))
        cells.append("held" if point.value == sweep.held else "" if point.trial is None else f"trial {point.trial}")
        table.add_row(*cells)
    return table
