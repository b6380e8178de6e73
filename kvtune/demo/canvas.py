"""The square that demo scenes are drawn on: larger than the picture, and reduced to it."""

SIZE = 64
"""Pixels of a side of the picture."""

SUPERSAMPLING = 4
"""Pixels of the drawing for one of the picture, along a side."""


def scaled(*numbers: float) -> list[float]:
    """Coordinates of the picture as those of the drawing."""
    return [number * SUPERSAMPLING for number in numbers]
