"""Pictures for a paper's column, one file each; :mod:`kvtune.report.figures.drawing` is what they share."""

from kvtune.report.figures.drawing import (
    COLUMN_WIDTH,
    PALETTE,
    column_figure,
    give_room,
    legend_below,
    save_figure,
    save_pictures,
    style,
)

__all__ = [
    "COLUMN_WIDTH",
    "PALETTE",
    "column_figure",
    "give_room",
    "legend_below",
    "save_figure",
    "save_pictures",
    "style",
]
