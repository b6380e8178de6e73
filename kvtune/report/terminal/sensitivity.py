"""How a study's scores depend on each parameter, as tables."""

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.sensitivity import Sensitivity, Sweep
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.report.terminal.cells import LENGTH, interval, number, rate
from kvtune.report.terminal.tables import plain_table
from kvtune.report.terminal.trials import fitting
from kvtune.text import visible

if TYPE_CHECKING:
    import pandas as pd


def sensitivity_view(found: Sensitivity, console: Console) -> RenderableType:
    """Return a table for each parameter and what matters most; on a narrow console, intervals under their rates."""
    held = ", ".join(f"{name} {number(value)}" for name, value in found.around.items())
    parts: list[RenderableType] = [
        Text(visible(f"{found.study}: one parameter varied around trial {found.trial} ({found.rule}): {held}")),
    ]
    for sweep in found.sweeps:
        parts += [
            Text(),
            fitting([_table(sweep, "{} ({})"), _table(sweep, "{}\n{}")], console),
        ]
    parts.append(Text())
    if found.importance is None:
        parts.append(Text("Importance: too few trials"))
    for objective, shares in (found.importance or {}).items():
        ranked = sorted(shares.items(), key=lambda share: -share[1])
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
        parts.append(Text(f"Importance for {METRICS[objective].label} (PED-ANOVA): {told}"))
    return Group(*parts)


def sensitivity_frame(found: Sensitivity) -> "pd.DataFrame":
    """Return one row a value: ``parameter``, ``value``, ``trial``, scores, intervals as NAME_low and NAME_high."""
    import pandas as pd

    rows = []
    for sweep in found.sweeps:
        for point in sweep.points:
            row = {"parameter": sweep.parameter, "value": point.value, "trial": point.trial, **point.metrics.to_dict()}
            for name, (low, high) in point.intervals.items():
                row |= {f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return pd.DataFrame(rows).astype({"trial": "Int64"})


def _table(sweep: Sweep, cell: str) -> Table:
    """``cell`` formats a rate with its interval."""
    table = plain_table(gap=2)
    table.add_column(sweep.parameter, justify="right", no_wrap=True)
    for metric in (*OBJECTIVES, *LENGTH):
        table.add_column(METRICS[metric].label, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for point in sweep.points:
        cells = [number(point.value)]
        for metric in OBJECTIVES:
            cells.append(cell.format(rate(point.metrics[metric]), interval(point.intervals[metric])))
        cells += [rate(point.metrics[metric]) for metric in LENGTH]
        cells.append("held" if point.value == sweep.held else "" if point.trial is None else f"trial {point.trial}")
        table.add_row(*cells)
    return table
