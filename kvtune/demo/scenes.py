"""Scenes of the demo: which objects are there, where they stand, and the 64x64 picture of them.

Everything about a scene follows from ``(seed, image_id)`` and from how hard it is to see: its kind, its objects and
its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from kvtune.demo.canvas import SIZE, SUPERSAMPLING, scaled
from kvtune.demo.drawing import draw
from kvtune.demo.scene_kinds import KINDS, Kind
from kvtune.demo.shapes import SHAPES

#: Categories in the order of COCO's ids; an object's place in it is its label.
CATEGORIES: tuple[str, ...] = tuple(sorted(SHAPES, key=lambda name: SHAPES[name].coco_id))


_FEWEST_CATEGORIES, _MOST_OBJECTS = 3, 7


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


def _draw(
    rng: np.random.Generator, image_id: int, name: str, kind: Kind, placed: list[_Placed], fewest_pixels: int
) -> Scene | None:
    """The picture of the placed objects, or None where one of them is mostly hidden."""
    side = SIZE * SUPERSAMPLING
    picture, silhouettes = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    canvas, marks = ImageDraw.Draw(picture), ImageDraw.Draw(silhouettes)
    kind.backdrop(canvas, rng)
    for index, one in enumerate(placed):
        left, top, right, bottom = scaled(*one.box)
        box = (left, top, right, bottom)
        draw([(canvas, None), (marks, index + 1)], one.category, one.colour, box, one.mirrored, one.shade)
    middle = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    instances = np.asarray(silhouettes)[middle, middle]
    objects = []
    for index, one in enumerate(placed):
        rows, columns = np.nonzero(instances == index + 1)
        whole = (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])
        if len(rows) < max(fewest_pixels, 0.25 * whole):
            return None
        visible = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        objects.append(SceneObject(one.category, one.colour, one.size, visible, len(rows)))
    smooth = np.asarray(picture.reduce(SUPERSAMPLING), dtype=np.float32)
    noise = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32) * rng.uniform(2, 7)
    pixels = np.clip(smooth * rng.uniform(0.92, 1.06) + noise, 0, 255).astype(np.uint8)
    return Scene(image_id, name, tuple(objects), pixels, instances.copy())
