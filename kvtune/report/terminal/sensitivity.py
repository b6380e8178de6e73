"""How a study's scores depend on each parameter, as tables."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.claims import LABELS
from kvtune.analysis.sensitivity import Sensitivity, Sweep
from kvtune.report.terminal.trials import fitting, number, rate
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
            fitting([_table(sweep, "{} ({:.1f} to {:.1f})"), _table(sweep, "{}\n{:.1f}–{:.1f}")], console),
        ]
    parts.append(Text())
    if found.importance is None:
        parts.append(Text("Importance: too few trials"))
    for objective, shares in (found.importance or {}).items():
        ranked = sorted(shares.items(), key=lambda share: -share[1])
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
        parts.append(Text(f"Importance for {LABELS[objective]} (PED-ANOVA): {told}"))
    return Group(*parts)


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


def _table(sweep: Sweep, cell: str) -> Table:
    """``cell`` formats a rate with the ends of its interval."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(sweep.parameter, justify="right", no_wrap=True)
    for heading in (*LABELS.values(), "words"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for point in sweep.points:
        cells = [number(point.value)]
        for metric in LABELS:
            low, high = point.intervals[metric]
            cells.append(cell.format(rate(point.metrics[metric]), low, high))
        cells.append(rate(point.metrics["mean_words"]))
        cells.append("held" if point.value == sweep.held else "" if point.trial is None else f"trial {point.trial}")
        table.add_row(*cells)
    return table
