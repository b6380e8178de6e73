"""Drawing an object of a demo scene: the parts of its category's shape, in its colour and place."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import ImageDraw

from kvtune.demo.shapes import COLOURS, PALETTE, RGB, SHAPES


def draw(
    canvases: Sequence[tuple[ImageDraw.ImageDraw, int | None]],
    name: str,
    colour: str,
    box: tuple[float, float, float, float],
    mirrored: bool,
    shade: float = 1.0,
) -> None:
    """Draw one object.

    Parameters
    ----------
    canvases : sequence of (ImageDraw, ink)
        Where to draw. An ink of None takes the drawing's own colours; a number is used for every part, which
        draws the object's silhouette (for a map of instances).
    name : str
        A key of `SHAPES`.
    colour : str
        A key of `PALETTE`, for the parts in the main colour.
    box : (x0, y0, x1, y1)
        In pixels of the canvases.
    mirrored : bool
        Left and right swapped.
    shade : float
        Brightness of all parts, 1 is as in the palette.
    """
    shape = SHAPES[name]
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    for part in shape.parts:
        own = _shaded(PALETTE[colour] if part.colour == "main" else COLOURS[part.colour], shade)
        edge = _shaded(own, 0.55) if part.colour == "main" else None
        numbers = part.numbers[1:] if part.kind == "line" else part.numbers
        if part.kind == "wheel":
            numbers = numbers[:2]
        points = [
            (left + width * ((1 - x) if mirrored else x), top + height * y)
            for x, y in zip(numbers[0::2], numbers[1::2], strict=True)
        ]
        for canvas, ink in canvases:
            fill, outline = (own, edge) if ink is None else (ink, ink)
            if part.kind == "poly":
                canvas.polygon(points, fill=fill, outline=outline, width=2)
            elif part.kind == "line":
                canvas.line(points, fill=fill, width=max(2, round(part.numbers[0] * height)))
            elif part.kind == "wheel":
                radius = (part.numbers[2] * width / shape.aspect, part.numbers[2] * height)
                canvas.ellipse(_around(points[0], radius), fill=fill)
                hub = _shaded(COLOURS["steel"], shade) if ink is None else ink
                canvas.ellipse(_around(points[0], (0.45 * radius[0], 0.45 * radius[1])), fill=hub)
            else:
                (xa, ya), (xb, yb) = points
                corners = (min(xa, xb), ya, max(xa, xb), yb)
                if part.kind == "rect":
                    canvas.rectangle(corners, fill=fill, outline=outline, width=2)
                elif part.kind == "oval":
                    canvas.ellipse(corners, fill=fill, outline=outline, width=2)
                elif part.kind == "ring":
                    canvas.ellipse(corners, outline=fill, width=max(3, round(0.12 * height)))
                else:
                    canvas.pieslice(corners, 180, 360, fill=fill, outline=outline, width=2)


def _shaded(colour: RGB, shade: float) -> RGB:
    red, green, blue = (min(255, int(c * shade)) for c in colour)
    return red, green, blue


def _around(centre: tuple[float, float], radius: tuple[float, float]) -> tuple[float, float, float, float]:
    return centre[0] - radius[0], centre[1] - radius[1], centre[0] + radius[0], centre[1] + radius[1]
