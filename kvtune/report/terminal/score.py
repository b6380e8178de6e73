"""What ``kvtune score`` prints."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.score import Scored
from kvtune.chair import METRICS
from kvtune.chair.notes import Note
from kvtune.report.cells import interval
from kvtune.text import number_of


def score_view(scored: Scored) -> RenderableType:
    """Return the rates with intervals and meanings, then notes."""
    score = scored.score
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for name, metric in METRICS.items():
        bounds = interval(scored.intervals[name]) if name in scored.intervals else ""
        table.add_row(metric.label, f"{getattr(score, name):.2f}", bounds, metric.meaning)
    images = number_of(scored.images, "image")
    table.add_row("captions", str(score.captions), "", f"of {images}; 95 % intervals")
    table.add_row("scorer", "", "", score.scorer)
    return Group(table, "", notes_view(scored.notes)) if scored.notes else table


def notes_view(notes: Sequence[Note]) -> RenderableType:
    """Notes in the terminal, warnings first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for note in sorted(notes, key=lambda note: not note.is_warning):
        word = Text("warning:", style="bold yellow") if note.is_warning else Text("note:")
        grid.add_row(word, Text(note.text))
    return grid
