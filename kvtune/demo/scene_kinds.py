"""Kinds of demo scenes: which objects are usual in each, how often, and where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from kvtune.demo import backdrops


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
        backdrops.kitchen,
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
        backdrops.dining_room,
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
        backdrops.living_room,
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
        backdrops.office,
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
        backdrops.street,
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
        backdrops.park,
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
        backdrops.beach,
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
        backdrops.farm,
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
        backdrops.snow,
        (42, 62),
    ),
}
