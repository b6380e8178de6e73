"""The baseline cut to its first sentences, as a table in the terminal."""

from rich.console import Console
from rich.table import Table

from kvtune.analysis.summary import StudySummary
from kvtune.chair import OBJECTIVES
from kvtune.report.cells import LENGTH, heading, rate
from kvtune.report.terminal.tables import plain_table

_FIRST_COLUMN = 17
_COLUMN = 7
"""Characters, with the space between columns."""


def cut_table(summary: StudySummary, console: Console) -> Table | None:
    """Return words, CHAIR_S and F1 of the baseline's captions cut to 1, 2, 3, ... sentences, a column each.

    The console's width decides how many are shown, the shortest first; None where nobody looked.
    """
    if not summary.cut_baseline:
        return None
    cuts = summary.cut_baseline[: max(1, (console.width - _FIRST_COLUMN) // _COLUMN)]
    table = plain_table()
    table.add_column("sentences kept", no_wrap=True)
    for cut in cuts:
        table.add_column(str(cut.sentences), justify="right", no_wrap=True, min_width=_COLUMN - 2)
    for name in (*LENGTH, *OBJECTIVES):
        label = heading(name, ascii_only=console.options.ascii_only)
        table.add_row(label, *(rate(cut[name]) for cut in cuts))
    return table
