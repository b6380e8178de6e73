"""The one style of the tables in the terminal."""

from rich import box
from rich.table import Table


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
