"""The one style of the tables in the terminal, and which of several layouts fits."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kvtune.text import visible

WIDEST = 100
"""Columns that pictures and bars take at most."""


def plain_table(title: str | None = None, gap: int = 1) -> Table:
    """A table without a frame, a line under its head, ``gap`` columns between its own."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, gap, 0, 0),
        header_style="bold",
    )


def add_numbers(table: Table, headings: Iterable[str]) -> None:
    """Add a column of numbers for each of these headings."""
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def fitting(layouts: Sequence[RenderableType], console: Console) -> RenderableType:
    """Return the first layout that ``console`` is wide enough for, or the last."""
    return next((layout for layout in layouts if width_of(layout, console) <= console.width), layouts[-1])


def listed(sentences: Sequence[str]) -> RenderableType:
    """Return sentences as a list that wraps behind its dashes."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row("-", Text(visible(sentence)))
    return grid


def width_of(layout: RenderableType, console: Console) -> int:
    """Columns that a table, or the widest of a group, takes where there is room."""
    parts = layout.renderables if isinstance(layout, Group) else [layout]
    return max(Measurement.get(console, console.options.update(width=1000), part).maximum for part in parts)
