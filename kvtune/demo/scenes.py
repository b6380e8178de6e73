"""Scenes of the demo: which objects go together, where they stand, and the 64x64 picture of them.

Everything about a scene follows from ``(seed, image_id)`` and from how hard it is to see: its kind, its objects and
its noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from kvtune.demo.shapes import SHAPES, draw

SIZE = 64
_SUPERSAMPLING = 4
#: Categories in the order of COCO's ids; an object's place in it is its label.
CATEGORIES: tuple[str, ...] = tuple(sorted(SHAPES, key=lambda name: SHAPES[name].coco_id))

Ink = tuple[int, int, int]


@dataclass(frozen=True)
class Usual:
    """How often a category stands in a kind of scene, where, and how many of it at most."""

    probability: float
    zone: str
    most: int = 1


@dataclass(frozen=True)
class Kind:
    """One kind of scene. ``ground`` is the range of the baselines of standing objects, ``counter`` a shelf's height."""

    usual: dict[str, Usual]
    backdrop: Callable[[ImageDraw.ImageDraw, np.random.Generator], None]
    ground: tuple[float, float] = (46.0, 62.0)
    counter: float | None = None


@dataclass(frozen=True)
class SceneObject:
    """One drawn object; the box (x0, y0, x1, y1) and the area are of its visible pixels."""

    category: str
    colour: str
    size: str  # "small", "" or "large" within its category
    box: tuple[int, int, int, int]
    area: int

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the visible box in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    ``pixels`` is uint8 [64, 64, 3], ``instances`` uint8 [64, 64] with 0 for the background and 1 + an object's index.
    """

    image_id: int
    kind: str
    objects: tuple[SceneObject, ...]
    pixels: np.ndarray
    instances: np.ndarray


def _scaled(*numbers: float) -> list[float]:
    return [number * _SUPERSAMPLING for number in numbers]


def _bands(canvas: ImageDraw.ImageDraw, *bands: tuple[float, Ink]) -> None:
    """Fill horizontal bands; each starts at its y and runs to the bottom."""
    for top, ink in bands:
        canvas.rectangle(_scaled(0, top, SIZE, SIZE), fill=ink)


def _vary(rng: np.random.Generator, ink: Ink, amount: int = 14) -> Ink:
    shift = rng.integers(-amount, amount + 1, 3)
    red, green, blue = (int(min(255, max(0, c + s))) for c, s in zip(ink, shift, strict=True))
    return red, green, blue


def _kitchen(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    wall = _vary(rng, (214, 226, 214))
    _bands(
        canvas,
        (0, wall),
        (36, _vary(rng, (120, 100, 88))),
        (39, _vary(rng, (206, 178, 140))),
        (54, _vary(rng, (150, 140, 132))),
    )
    for x in range(0, SIZE, 8):
        canvas.line(_scaled(x, 0, x, 36), fill=(190, 204, 194), width=2)
    for y in range(4, 36, 8):
        canvas.line(_scaled(0, y, SIZE, y), fill=(190, 204, 194), width=2)
    for x in range(2, SIZE, 16):
        canvas.rectangle(_scaled(x, 41, x + 12, 53), outline=(150, 122, 90), width=3)


def _dining_room(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(canvas, (0, _vary(rng, (232, 204, 170))), (26, _vary(rng, (180, 132, 104))), (40, _vary(rng, (112, 84, 70))))
    canvas.rectangle(_scaled(0, 29, SIZE, 40), fill=_vary(rng, (206, 160, 116)), outline=(120, 84, 60), width=3)
    for x in range(8, SIZE, 16):
        canvas.rectangle(_scaled(x - 6, 32, x + 6, 38), outline=(150, 104, 72), width=3)
    lamp = rng.uniform(12, 52)
    canvas.line(_scaled(lamp, 0, lamp, 5), fill=(60, 50, 50), width=3)
    canvas.polygon(_scaled(lamp - 2, 5, lamp + 2, 5, lamp + 6, 10, lamp - 6, 10), fill=(250, 226, 130))


def _living_room(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(canvas, (0, _vary(rng, (196, 206, 226))), (42, _vary(rng, (184, 142, 102))))
    for y in range(46, SIZE, 6):
        canvas.line(_scaled(0, y, SIZE, y), fill=(160, 120, 84), width=2)
    x = rng.uniform(2, 46)
    canvas.rectangle(_scaled(x, 4, x + 16, 22), fill=(250, 250, 250))
    canvas.rectangle(_scaled(x + 2, 6, x + 14, 20), fill=_vary(rng, (150, 206, 240)))
    canvas.rectangle(_scaled(x + 7.3, 6, x + 8.7, 20), fill=(250, 250, 250))


def _office(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _bands(
        canvas,
        (0, _vary(rng, (226, 226, 214))),
        (35, _vary(rng, (110, 116, 126))),
        (38, _vary(rng, (160, 166, 176))),
        (50, _vary(rng, (92, 102, 124))),
    )
    x = rng.uniform(2, 38)
    for y in range(3, 19, 2):
        canvas.rectangle(_scaled(x, y, x + 22, y + 1.1), fill=_vary(rng, (150, 176, 196), 6))


def _sky(canvas: ImageDraw.ImageDraw, rng: np.random.Generator, ink: Ink, clouds: bool = True) -> None:
    _bands(canvas, (0, _vary(rng, ink)))
    for _ in range(int(rng.integers(1, 3)) if clouds else 0):
        x, y = rng.uniform(2, 54), rng.uniform(2, 12)
        for dx, r in ((0, 3.0), (4, 4.0), (8, 3.0)):
            canvas.ellipse(_scaled(x + dx - r, y - r * 0.7, x + dx + r, y + r * 0.7), fill=(250, 252, 255))


def _street(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (186, 212, 236), clouds=False)
    left = -2.0
    while left < SIZE:
        width, top = rng.uniform(9, 16), rng.uniform(4, 18)
        wall = _vary(rng, (176, 150, 138), 28)
        canvas.rectangle(_scaled(left, top, left + width, 40), fill=wall)
        for wy in np.arange(top + 2, 36, 5):
            for wx in np.arange(left + 1.5, left + width - 2, 4):
                canvas.rectangle(_scaled(wx, wy, wx + 1.7, wy + 2.4), fill=(236, 232, 190))
        left += width
    _bands(canvas, (38, _vary(rng, (188, 186, 182))), (43, _vary(rng, (92, 94, 100))))
    for x in range(int(rng.integers(0, 8)), SIZE, 13):
        canvas.rectangle(_scaled(x, 52, x + 7, 53.4), fill=(232, 232, 226))


def _trees(canvas: ImageDraw.ImageDraw, rng: np.random.Generator, ground: float, pines: bool) -> None:
    for _ in range(int(rng.integers(2, 5))):
        x, h = rng.uniform(0, SIZE), rng.uniform(10, 17)
        leaf = _vary(rng, (26, 92, 62) if pines else (36, 112, 48), 12)
        canvas.rectangle(_scaled(x - 0.8, ground - h * 0.35, x + 0.8, ground), fill=(96, 66, 44))
        if pines:
            canvas.polygon(
                _scaled(x, ground - h, x + h * 0.32, ground - h * 0.2, x - h * 0.32, ground - h * 0.2), fill=leaf
            )
        else:
            canvas.ellipse(_scaled(x - h * 0.36, ground - h, x + h * 0.36, ground - h * 0.28), fill=leaf)


def _park(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (150, 206, 246))
    _trees(canvas, rng, 33, pines=False)
    _bands(canvas, (32, _vary(rng, (126, 190, 92))))
    y = rng.uniform(47, 54)
    canvas.polygon(_scaled(0, y, SIZE, y + 3, SIZE, y + 8, 0, y + 5), fill=_vary(rng, (222, 206, 168)))


def _beach(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (160, 220, 250))
    _bands(canvas, (19, _vary(rng, (30, 132, 190))), (37, (230, 244, 248)), (38.4, _vary(rng, (240, 216, 158))))
    for _ in range(5):
        x, y = rng.uniform(0, 56), rng.uniform(22, 35)
        canvas.line(_scaled(x, y, x + 6, y), fill=(120, 196, 226), width=3)


def _farm(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (176, 214, 240))
    x = rng.uniform(8, 50)
    canvas.ellipse(_scaled(x - 30, 20, x + 26, 60), fill=_vary(rng, (122, 168, 82)))
    x = rng.uniform(2, 46)
    canvas.rectangle(_scaled(x, 20, x + 14, 32), fill=_vary(rng, (150, 54, 48)))
    canvas.polygon(_scaled(x - 1.5, 20, x + 7, 13, x + 15.5, 20), fill=(96, 60, 56))
    _bands(canvas, (31, _vary(rng, (196, 186, 92))))
    canvas.rectangle(_scaled(0, 34, SIZE, 35), fill=(134, 98, 66))
    for x in range(1, SIZE, 9):
        canvas.rectangle(_scaled(x, 31.5, x + 1.4, 38), fill=(134, 98, 66))


def _snow(canvas: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    _sky(canvas, rng, (190, 208, 232), clouds=False)
    x = rng.uniform(14, 50)
    canvas.polygon(_scaled(x - 30, 32, x, 4, x + 30, 32), fill=_vary(rng, (136, 150, 178)))
    canvas.polygon(_scaled(x - 9.5, 13, x, 4, x + 9.5, 13), fill=(244, 248, 252))
    _trees(canvas, rng, 32, pines=True)
    _bands(canvas, (31, _vary(rng, (228, 236, 246), 8)))
    canvas.line(_scaled(0, rng.uniform(40, 60), SIZE, rng.uniform(40, 60)), fill=(204, 216, 234), width=5)


#: Kind of scene -> its usual objects. Probabilities are before the cap of seven objects.
KINDS: dict[str, Kind] = {
    "kitchen": Kind(
        {
            "refrigerator": Usual(0.5, "ground"),
            "oven": Usual(0.5, "ground"),
            "bottle": Usual(0.42, "counter", 2),
            "cup": Usual(0.45, "counter", 2),
            "bowl": Usual(0.4, "counter"),
            "apple": Usual(0.4, "counter", 3),
            "person": Usual(0.3, "ground"),
            "clock": Usual(0.3, "wall"),
            "chair": Usual(0.2, "ground"),
        },
        _kitchen,
        (54, 62),
        39,
    ),
    "dining room": Kind(
        {
            "dining table": Usual(0.75, "ground"),
            "chair": Usual(0.55, "ground", 2),
            "pizza": Usual(0.45, "counter"),
            "cup": Usual(0.4, "counter", 2),
            "bottle": Usual(0.35, "counter", 2),
            "bowl": Usual(0.3, "counter"),
            "person": Usual(0.42, "ground", 2),
            "potted plant": Usual(0.22, "ground"),
            "clock": Usual(0.22, "wall"),
        },
        _dining_room,
        (48, 62),
        30,
    ),
    "living room": Kind(
        {
            "couch": Usual(0.65, "ground"),
            "tv": Usual(0.5, "wall"),
            "chair": Usual(0.22, "ground"),
            "potted plant": Usual(0.42, "ground"),
            "cat": Usual(0.42, "ground", 2),
            "dog": Usual(0.22, "ground"),
            "book": Usual(0.3, "ground", 2),
            "clock": Usual(0.35, "wall"),
            "person": Usual(0.25, "ground"),
        },
        _living_room,
        (48, 62),
    ),
    "office": Kind(
        {
            "laptop": Usual(0.6, "counter", 2),
            "chair": Usual(0.5, "ground", 2),
            "book": Usual(0.42, "counter", 3),
            "cup": Usual(0.4, "counter"),
            "clock": Usual(0.42, "wall"),
            "potted plant": Usual(0.35, "ground"),
            "bottle": Usual(0.2, "counter"),
            "person": Usual(0.35, "ground", 2),
            "tv": Usual(0.2, "wall"),
        },
        _office,
        (52, 62),
        38,
    ),
    "street": Kind(
        {
            "car": Usual(0.6, "ground", 2),
            "bus": Usual(0.3, "ground"),
            "truck": Usual(0.25, "ground"),
            "traffic light": Usual(0.45, "ground", 2),
            "stop sign": Usual(0.3, "ground"),
            "fire hydrant": Usual(0.35, "ground"),
            "bicycle": Usual(0.35, "ground"),
            "person": Usual(0.45, "ground", 3),
            "dog": Usual(0.12, "ground"),
        },
        _street,
        (44, 62),
    ),
    "park": Kind(
        {
            "bench": Usual(0.55, "ground", 2),
            "dog": Usual(0.45, "ground", 2),
            "bicycle": Usual(0.3, "ground"),
            "kite": Usual(0.4, "sky", 2),
            "sports ball": Usual(0.35, "ground"),
            "bird": Usual(0.4, "sky", 3),
            "person": Usual(0.5, "ground", 3),
            "umbrella": Usual(0.15, "ground"),
        },
        _park,
        (40, 62),
    ),
    "beach": Kind(
        {
            "boat": Usual(0.5, "water", 2),
            "surfboard": Usual(0.5, "ground", 2),
            "umbrella": Usual(0.5, "ground", 2),
            "person": Usual(0.55, "ground", 3),
            "kite": Usual(0.25, "sky"),
            "bird": Usual(0.38, "sky", 3),
            "dog": Usual(0.2, "ground"),
            "sports ball": Usual(0.25, "ground"),
        },
        _beach,
        (46, 62),
    ),
    "farm": Kind(
        {
            "cow": Usual(0.55, "ground", 3),
            "sheep": Usual(0.5, "ground", 3),
            "horse": Usual(0.48, "ground", 2),
            "dog": Usual(0.25, "ground"),
            "truck": Usual(0.28, "ground"),
            "bird": Usual(0.32, "sky", 3),
            "person": Usual(0.28, "ground"),
        },
        _farm,
        (40, 62),
    ),
    "snow": Kind(
        {
            "skis": Usual(0.6, "ground", 2),
            "person": Usual(0.7, "ground", 3),
            "dog": Usual(0.3, "ground"),
            "bench": Usual(0.3, "ground"),
            "bird": Usual(0.25, "sky", 2),
            "truck": Usual(0.2, "ground"),
        },
        _snow,
        (42, 62),
    ),
}


_FEWEST_CATEGORIES, _MOST_OBJECTS = 3, 7


@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is to see.

    Attributes
    ----------
    far
        Share of the objects that stand far away.
    far_scale
        How much smaller these look, from and to.
    fewest_pixels
        Visible ones that every object has at least.
    added
        Probabilities of 0, 1, 2, ... categories besides the chosen ones, of those usual in such a scene.
    """

    far: float
    far_scale: tuple[float, float]
    fewest_pixels: int
    added: tuple[float, ...]


#: The scenes that the model was trained on ...
TRAINED = Difficulty(0.2, (0.55, 0.78), 12, (1.0,))
#: ... and those that it is asked about: fuller, and with things so far away that they are overlooked or mistaken, as
#: the small objects of COCO are.
SHOWN = Difficulty(0.22, (0.12, 0.22), 3, (0.4, 0.5, 0.1))


@dataclass(frozen=True)
class _Placed:
    category: str
    colour: str
    size: str
    mirrored: bool
    shade: float
    box: tuple[float, float, float, float]


def _choose_categories(rng: np.random.Generator, kind: Kind, added: tuple[float, ...]) -> list[str]:
    chosen = _usual_categories(rng, kind)
    if len(added) > 1:  # else nothing is drawn, and scenes of training stay what they were
        others = [name for name in kind.usual if name not in chosen]
        rng.shuffle(others)
        chosen += others[: int(rng.choice(len(added), p=added))]
    return chosen


def _usual_categories(rng: np.random.Generator, kind: Kind) -> list[str]:
    while True:
        chosen: list[str] = []
        for name, usual in kind.usual.items():
            if rng.random() < usual.probability:
                count = 1
                while count < usual.most and rng.random() < 0.4:
                    count += 1
                chosen += [name] * count
        if len(chosen) <= _MOST_OBJECTS and len(set(chosen)) >= _FEWEST_CATEGORIES:
            return chosen


def _baseline(rng: np.random.Generator, kind: Kind, zone: str, height: float) -> float:
    """Height of the bottom of an object in pixels."""
    if zone == "counter" and kind.counter is not None:
        return kind.counter - rng.uniform(-1.5, 1.0)
    if zone == "wall":
        return rng.uniform(3, 9) + height
    if zone == "sky":
        return rng.uniform(2, 10) + height
    if zone == "water":
        return rng.uniform(28, 37)
    return rng.uniform(*kind.ground)


def _place(rng: np.random.Generator, kind: Kind, categories: list[str], difficulty: Difficulty) -> list[_Placed] | None:
    """Objects from back to front, some partly hidden by others; None where no room was found."""
    placed: list[_Placed] = []
    for name in sorted(categories, key=lambda name: -SHAPES[name].height[1]):
        shape, zone = SHAPES[name], kind.usual[name].zone
        for _ in range(12):
            spread = rng.random()
            depth = rng.uniform(*difficulty.far_scale) if rng.random() < difficulty.far else 1.0
            height = shape.height[0] + spread * (shape.height[1] - shape.height[0])
            bottom = _baseline(rng, kind, zone, height * depth)
            if zone == "ground":
                low, high = kind.ground
                if depth < 1:
                    bottom = low + (bottom - low) / 4
                depth *= 0.78 + 0.3 * (bottom - low) / (high - low)
            height *= depth
            width = height * shape.aspect * rng.uniform(0.92, 1.08)
            left = rng.uniform(1, max(1.5, SIZE - 1 - width))
            box = (left, bottom - height, left + width, bottom)
            if all(_overlap(box, other.box) < 0.4 for other in placed):
                relative = depth * (0.88 + 0.24 * spread)
                size = "small" if relative < 0.86 else "large" if relative > 1.08 else ""
                colour = shape.colours[int(rng.integers(len(shape.colours)))]
                placed.append(_Placed(name, colour, size, bool(rng.random() < 0.5), rng.uniform(0.9, 1.08), box))
                break
        else:
            return None
    return sorted(placed, key=lambda one: one.box[3])


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over the smaller area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / smaller


def render(seed: int, image_id: int, difficulty: Difficulty = SHOWN) -> Scene:
    """Render one scene.

    Parameters
    ----------
    seed : int
        Seed of the whole set, >= 0.
    image_id : int
        The image in it, >= 0.
    difficulty : Difficulty
        `SHOWN`, or `TRAINED` for training.
    """
    rng = np.random.default_rng([seed, image_id])
    name = list(KINDS)[int(rng.integers(len(KINDS)))]
    kind = KINDS[name]
    while True:
        categories = _choose_categories(rng, kind, difficulty.added)
        for _ in range(8):  # several tries for one choice, so that crowded scenes and big objects stay as frequent
            placed = _place(rng, kind, categories, difficulty)
            scene = _draw(rng, image_id, name, kind, placed, difficulty.fewest_pixels) if placed is not None else None
            if scene is not None:
                return scene


def _draw(
    rng: np.random.Generator, image_id: int, name: str, kind: Kind, placed: list[_Placed], fewest_pixels: int
) -> Scene | None:
    """The picture of the placed objects, or None where one of them is mostly hidden."""
    side = SIZE * _SUPERSAMPLING
    picture, silhouettes = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    canvas, marks = ImageDraw.Draw(picture), ImageDraw.Draw(silhouettes)
    kind.backdrop(canvas, rng)
    for index, one in enumerate(placed):
        left, top, right, bottom = _scaled(*one.box)
        box = (left, top, right, bottom)
        draw([(canvas, None), (marks, index + 1)], one.category, one.colour, box, one.mirrored, one.shade)
    middle = slice(_SUPERSAMPLING // 2, None, _SUPERSAMPLING)
    instances = np.asarray(silhouettes)[middle, middle]
    objects = []
    for index, one in enumerate(placed):
        rows, columns = np.nonzero(instances == index + 1)
        whole = (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
        if len(rows) < max(fewest_pixels, 0.25 * whole):
            return None
        visible = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        objects.append(SceneObject(one.category, one.colour, one.size, visible, len(rows)))
    smooth = np.asarray(picture.reduce(_SUPERSAMPLING), dtype=np.float32)
    noise = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32) * rng.uniform(2, 7)
    pixels = np.clip(smooth * rng.uniform(0.92, 1.06) + noise, 0, 255).astype(np.uint8)
    return Scene(image_id, name, tuple(objects), pixels, instances.copy())
