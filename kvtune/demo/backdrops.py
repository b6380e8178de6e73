"""What stands behind the objects of a demo scene: one drawing a kind of scene, varied by chance."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from kvtune.demo.canvas import SIZE, scaled

Ink = tuple[int, int, int]


def kitchen(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    wall = _vary(rng, (214, 226, 214))
    _bands(
        canvas,
        (0, wall),
        (36, _vary(rng, (120, 100, 88))),
        (39, _vary(rng, (206, 178, 140))),
        (54, _vary(rng, (150, 140, 132))),
    )
    for x in range(0, SIZE, 8):
        canvas.line(scaled(x, 0, x, 36), fill=(190, 204, 194), width=2)
    for y in range(4, 36, 8):
        canvas.line(scaled(0, y, SIZE, y), fill=(190, 204, 194), width=2)
    for x in range(2, SIZE, 16):
        canvas.rectangle(scaled(x, 41, x + 12, 53), outline=(150, 122, 90), width=3)


def dining_room(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(canvas, (0, _vary(rng, (232, 204, 170))), (26, _vary(rng, (180, 132, 104))), (40, _vary(rng, (112, 84, 70))))
    canvas.rectangle(scaled(0, 29, SIZE, 40), fill=_vary(rng, (206, 160, 116)), outline=(120, 84, 60), width=3)
    for x in range(8, SIZE, 16):
        canvas.rectangle(scaled(x - 6, 32, x + 6, 38), outline=(150, 104, 72), width=3)
    lamp = rng.uniform(12, 52)
    canvas.line(scaled(lamp, 0, lamp, 5), fill=(60, 50, 50), width=3)
    canvas.polygon(scaled(lamp - 2, 5, lamp + 2, 5, lamp + 6, 10, lamp - 6, 10), fill=(250, 226, 130))


def living_room(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(canvas, (0, _vary(rng, (196, 206, 226))), (42, _vary(rng, (184, 142, 102))))
    for y in range(46, SIZE, 6):
        canvas.line(scaled(0, y, SIZE, y), fill=(160, 120, 84), width=2)
    x = rng.uniform(2, 46)
    canvas.rectangle(scaled(x, 4, x + 16, 22), fill=(250, 250, 250))
    canvas.rectangle(scaled(x + 2, 6, x + 14, 20), fill=_vary(rng, (150, 206, 240)))
    canvas.rectangle(scaled(x + 7.3, 6, x + 8.7, 20), fill=(250, 250, 250))


def office(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(
        canvas,
        (0, _vary(rng, (226, 226, 214))),
        (35, _vary(rng, (110, 116, 126))),
        (38, _vary(rng, (160, 166, 176))),
        (50, _vary(rng, (92, 102, 124))),
    )
    x = rng.uniform(2, 38)
    for y in range(3, 19, 2):
        canvas.rectangle(scaled(x, y, x + 22, y + 1.1), fill=_vary(rng, (150, 176, 196), 6))


def street(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (186, 212, 236), clouds=False)
    left = -2.0
    while left < SIZE:
        width, top = rng.uniform(9, 16), rng.uniform(4, 18)
        wall = _vary(rng, (176, 150, 138), 28)
        canvas.rectangle(scaled(left, top, left + width, 40), fill=wall)
        for wy in np.arange(top + 2, 36, 5):
            for wx in np.arange(left + 1.5, left + width - 2, 4):
                canvas.rectangle(scaled(wx, wy, wx + 1.7, wy + 2.4), fill=(236, 232, 190))
        left += width
    _bands(canvas, (38, _vary(rng, (188, 186, 182))), (43, _vary(rng, (92, 94, 100))))
    for x in range(int(rng.integers(0, 8)), SIZE, 13):
        canvas.rectangle(scaled(x, 52, x + 7, 53.4), fill=(232, 232, 226))


def park(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (150, 206, 246))
    _trees(canvas, rng, 33, pines=False)
    _bands(canvas, (32, _vary(rng, (126, 190, 92))))
    y = rng.uniform(47, 54)
    canvas.polygon(scaled(0, y, SIZE, y + 3, SIZE, y + 8, 0, y + 5), fill=_vary(rng, (222, 206, 168)))


def beach(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (160, 220, 250))
    _bands(canvas, (19, _vary(rng, (30, 132, 190))), (37, (230, 244, 248)), (38.4, _vary(rng, (240, 216, 158))))
    for _ in range(5):
        x, y = rng.uniform(0, 56), rng.uniform(22, 35)
        canvas.line(scaled(x, y, x + 6, y), fill=(120, 196, 226), width=3)


def farm(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (176, 214, 240))
    x = rng.uniform(8, 50)
    canvas.ellipse(scaled(x - 30, 20, x + 26, 60), fill=_vary(rng, (122, 168, 82)))
    x = rng.uniform(2, 46)
    canvas.rectangle(scaled(x, 20, x + 14, 32), fill=_vary(rng, (150, 54, 48)))
    canvas.polygon(scaled(x - 1.5, 20, x + 7, 13, x + 15.5, 20), fill=(96, 60, 56))
    _bands(canvas, (31, _vary(rng, (196, 186, 92))))
    canvas.rectangle(scaled(0, 34, SIZE, 35), fill=(134, 98, 66))
    for x in range(1, SIZE, 9):
        canvas.rectangle(scaled(x, 31.5, x + 1.4, 38), fill=(134, 98, 66))


def snow(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (190, 208, 232), clouds=False)
    x = rng.uniform(14, 50)
    canvas.polygon(scaled(x - 30, 32, x, 4, x + 30, 32), fill=_vary(rng, (136, 150, 178)))
    canvas.polygon(scaled(x - 9.5, 13, x, 4, x + 9.5, 13), fill=(244, 248, 252))
    _trees(canvas, rng, 32, pines=True)
    _bands(canvas, (31, _vary(rng, (228, 236, 246), 8)))
    canvas.line(scaled(0, rng.uniform(40, 60), SIZE, rng.uniform(40, 60)), fill=(204, 216, 234), width=5)


def _bands(canvas: ImageDraw.ImageDraw, *bands: tuple[float, Ink]) -> None:
    """Fill horizontal bands; each starts at its y and runs to the bottom."""
    for top, ink in bands:
        canvas.rectangle(scaled(0, top, SIZE, SIZE), fill=ink)


def _vary(rng: np.random.Generator, ink: Ink, amount: int = 14) -> Ink:
    shift = rng.integers(-amount, amount + 1, 3)
    red, green, blue = (int(min(255, max(0, c + s))) for c, s in zip(ink, shift, strict=True))
    return red, green, blue


def _sky(canvas: ImageDraw.ImageDraw, rng: np.random.Generator, ink: Ink, clouds: bool = True) -> None:
    _bands(canvas, (0, _vary(rng, ink)))
    for _ in range(int(rng.integers(1, 3)) if clouds else 0):
        x, y = rng.uniform(2, 54), rng.uniform(2, 12)
        for dx, r in ((0, 3.0), (4, 4.0), (8, 3.0)):
            canvas.ellipse(scaled(x + dx - r, y - r * 0.7, x + dx + r, y + r * 0.7), fill=(250, 252, 255))


def _trees(canvas: ImageDraw.ImageDraw, rng: np.random.Generator, ground: float, pines: bool) -> None:
    for _ in range(int(rng.integers(2, 5))):
        x, h = rng.uniform(0, SIZE), rng.uniform(10, 17)
        leaf = _vary(rng, (26, 92, 62) if pines else (36, 112, 48), 12)
        canvas.rectangle(scaled(x - 0.8, ground - h * 0.35, x + 0.8, ground), fill=(96, 66, 44))
        if pines:
            canvas.polygon(
                scaled(x, ground - h, x + h * 0.32, ground - h * 0.2, x - h * 0.32, ground - h * 0.2), fill=leaf
            )
        else:
            canvas.ellipse(scaled(x - h * 0.36, ground - h, x + h * 0.36, ground - h * 0.28), fill=leaf)
