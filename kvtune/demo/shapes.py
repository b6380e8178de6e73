"""How the objects of the demo scenes look: flat shapes, one small drawing a COCO category.

A drawing is written one part a line, from back to front, in a unit box (x to the right, y down, 0 to 1):

    rect COLOUR x0 y0 x1 y1          oval and ring alike; pie is the upper half of an oval
    poly COLOUR x y x y ...
    line COLOUR width x y x y ...    the width as a share of the box's height
    wheel COLOUR x y radius          the radius as a share of the box's height

The colour ``main`` stands for the one drawn for the object; all other colours belong to the category.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

#: The colours that captions name. "orange" is missing on purpose: for CHAIR the word is the fruit.
PALETTE: dict[str, RGB] = {
    "red": (212, 38, 38),
    "blue": (38, 84, 214),
    "green": (34, 150, 60),
    "yellow": (244, 208, 44),
    "white": (246, 246, 246),
    "black": (28, 28, 34),
    "brown": (134, 82, 42),
    "purple": (130, 56, 172),
    "pink": (244, 136, 184),
    "gray": (140, 146, 154),
}

#: All colours of drawings.
COLOURS: dict[str, RGB] = PALETTE | {
    "skin": (238, 192, 150),
    "glass": (168, 220, 240),
    "dark": (52, 52, 60),
    "leaf": (44, 170, 66),
    "clay": (198, 96, 54),
    "steel": (196, 202, 210),
    "amber": (250, 150, 30),
    "cheese": (250, 214, 110),
}


@dataclass(frozen=True)
class Part:
    """One line of a drawing."""

    kind: str
    colour: str
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Shape:
    """One category's drawing: its height in pixels of the scene, width over height, colours and parts."""

    coco_id: int
    supercategory: str
    height: tuple[float, float]
    aspect: float
    colours: tuple[str, ...]
    parts: tuple[Part, ...]


_VEHICLE = "red blue yellow white green black"
_CLOTHES = "red blue green yellow purple black pink"


def _shape(
    coco_id: int, supercategory: str, height: tuple[float, float], aspect: float, colours: str, drawing: str
) -> Shape:
    parts = []
    for line in drawing.strip().splitlines():
        kind, colour, *numbers = line.split()
        parts.append(Part(kind, colour, tuple(map(float, numbers))))
    return Shape(coco_id, supercategory, height, aspect, tuple(colours.split()), tuple(parts))


# fmt: off
#: Category name -> drawing. Ids and supercategories are COCO's own.
SHAPES: dict[str, Shape] = {
    "person": _shape(1, "person", (24, 30), 0.46, _CLOTHES, """
        rect dark 0.26 0.62 0.46 1
        rect dark 0.54 0.62 0.74 1
        rect skin 0.02 0.3 0.2 0.6
        rect skin 0.8 0.3 0.98 0.6
        poly main 0.04 0.28 0.96 0.28 0.96 0.42 0.78 0.46 0.78 0.68 0.22 0.68 0.22 0.46 0.04 0.42
        oval brown 0.24 0 0.76 0.24
        oval skin 0.28 0.06 0.72 0.28
    """),
    "bicycle": _shape(2, "vehicle", (15, 18), 1.55, "red blue green purple", """
        ring black 0 0.4 0.38 1
        ring black 0.62 0.4 1 1
        line main 0.1 0.19 0.7 0.36 0.28 0.72 0.28 0.48 0.72 0.19 0.7
        line main 0.1 0.36 0.28 0.48 0.72
        line main 0.1 0.81 0.7 0.7 0.1
        rect black 0.28 0.16 0.46 0.26
        rect black 0.6 0.04 0.78 0.14
    """),
    "car": _shape(3, "vehicle", (13, 16), 2.05, _VEHICLE, """
        poly main 0.16 0.46 0.3 0.06 0.72 0.06 0.86 0.46
        rect main 0 0.42 1 0.8
        poly glass 0.24 0.42 0.34 0.15 0.49 0.15 0.49 0.42
        poly glass 0.54 0.42 0.54 0.15 0.68 0.15 0.77 0.42
        rect yellow 0.93 0.48 1 0.6
        wheel black 0.22 0.8 0.2
        wheel black 0.78 0.8 0.2
    """),
    "bus": _shape(6, "vehicle", (20, 24), 1.75, "red blue yellow white green", """
        rect main 0 0.04 1 0.86
        rect glass 0.05 0.14 0.2 0.44
        rect glass 0.25 0.14 0.4 0.44
        rect glass 0.45 0.14 0.6 0.44
        rect glass 0.65 0.14 0.78 0.44
        rect dark 0.83 0.14 0.96 0.82
        rect white 0 0.54 0.8 0.62
        wheel black 0.2 0.86 0.13
        wheel black 0.7 0.86 0.13
    """),
    "truck": _shape(8, "vehicle", (18, 22), 1.9, "red blue green yellow", """
        rect steel 0 0.04 0.64 0.8
        rect gray 0.08 0.14 0.1 0.7
        rect gray 0.3 0.14 0.32 0.7
        rect gray 0.52 0.14 0.54 0.7
        poly main 0.66 0.26 0.88 0.26 1 0.54 1 0.84 0.66 0.84
        poly glass 0.74 0.34 0.86 0.34 0.93 0.54 0.74 0.54
        rect dark 0 0.78 1 0.86
        wheel black 0.15 0.86 0.14
        wheel black 0.48 0.86 0.14
        wheel black 0.82 0.86 0.14
    """),
    "boat": _shape(9, "vehicle", (20, 25), 0.95, "red blue green brown black", """
        rect dark 0.47 0 0.52 0.76
        poly white 0.54 0.04 0.98 0.66 0.54 0.66
        poly yellow 0.44 0.16 0.44 0.66 0.08 0.66
        poly main 0 0.74 1 0.74 0.84 1 0.16 1
    """),
    "traffic light": _shape(10, "outdoor", (24, 30), 0.4, "black", """
        rect gray 0.42 0.5 0.58 1
        rect black 0.1 0 0.9 0.62
        oval red 0.26 0.04 0.74 0.2
        oval yellow 0.26 0.23 0.74 0.39
        oval green 0.26 0.42 0.74 0.58
    """),
    "fire hydrant": _shape(11, "outdoor", (14, 17), 0.75, "red yellow", """
        rect main 0.12 0.86 0.88 1
        rect main 0.24 0.28 0.76 0.9
        oval main 0.2 0.04 0.8 0.5
        rect main 0 0.4 1 0.62
        oval steel 0.36 0.38 0.64 0.64
        rect steel 0.42 0 0.58 0.1
    """),
    "stop sign": _shape(13, "outdoor", (24, 29), 0.55, "red", """
        rect gray 0.45 0.4 0.55 1
        poly white 0.28 0 0.72 0 1 0.15 1 0.4 0.72 0.55 0.28 0.55 0 0.4 0 0.15
        poly red 0.32 0.04 0.68 0.04 0.92 0.17 0.92 0.38 0.68 0.51 0.32 0.51 0.08 0.38 0.08 0.17
        rect white 0.16 0.22 0.84 0.33
    """),
    "bench": _shape(15, "outdoor", (13, 16), 1.9, "brown green", """
        rect main 0.04 0 0.96 0.18
        rect main 0.04 0.24 0.96 0.4
        rect main 0 0.52 1 0.68
        rect black 0.08 0 0.14 1
        rect black 0.86 0 0.92 1
    """),
    "bird": _shape(16, "animal", (9, 12), 1.5, "white black blue red", """
        poly amber 0.86 0.36 1 0.46 0.86 0.52
        poly main 0 0.5 0.3 0.5 0.2 0.8
        oval main 0.14 0.4 0.76 0.92
        oval main 0.62 0.22 0.92 0.64
        poly dark 0.26 0.58 0.14 0 0.58 0.5
        oval amber 0.76 0.34 0.84 0.46
    """),
    "cat": _shape(17, "animal", (15, 18), 0.85, "gray black white", """
        line main 0.1 0.8 0.92 0.97 0.8 0.92 0.5
        poly main 0.2 1 0.28 0.46 0.66 0.46 0.84 1
        poly main 0.14 0.26 0.16 0 0.36 0.12
        poly main 0.78 0.26 0.76 0 0.56 0.12
        oval main 0.1 0.08 0.82 0.52
        oval yellow 0.24 0.2 0.4 0.34
        oval yellow 0.52 0.2 0.68 0.34
        poly pink 0.4 0.36 0.52 0.36 0.46 0.44
    """),
    "dog": _shape(18, "animal", (14, 17), 1.25, "brown black white yellow", """
        rect main 0.16 0.66 0.24 1
        rect main 0.3 0.66 0.38 1
        rect main 0.6 0.66 0.68 1
        rect main 0.72 0.66 0.8 1
        line main 0.1 0.14 0.5 0.02 0.18
        rect main 0.12 0.42 0.8 0.74
        oval main 0.6 0.08 0.94 0.54
        rect main 0.84 0.28 1 0.46
        oval black 0.94 0.26 1 0.36
        oval dark 0.58 0.1 0.72 0.5
        rect red 0.62 0.5 0.84 0.58
    """),
    "horse": _shape(19, "animal", (23, 28), 1.1, "brown black white", """
        rect main 0.16 0.56 0.23 1
        rect main 0.28 0.56 0.35 1
        rect main 0.58 0.56 0.65 1
        rect main 0.68 0.56 0.75 1
        poly dark 0.12 0.4 0 0.74 0.08 0.76 0.18 0.48
        oval main 0.1 0.34 0.78 0.7
        poly main 0.58 0.5 0.72 0.08 0.86 0.1 0.78 0.56
        poly main 0.72 0.04 1 0.2 0.96 0.32 0.74 0.24
        poly dark 0.54 0.42 0.68 0.02 0.76 0.04 0.64 0.44
        poly main 0.74 0.1 0.76 0 0.82 0.08
    """),
    "sheep": _shape(20, "animal", (14, 17), 1.35, "white", """
        rect black 0.22 0.7 0.29 1
        rect black 0.34 0.7 0.41 1
        rect black 0.56 0.7 0.63 1
        rect black 0.68 0.7 0.75 1
        oval white 0.04 0.14 0.42 0.66
        oval white 0.28 0.06 0.62 0.6
        oval white 0.46 0.14 0.8 0.68
        oval white 0.1 0.34 0.5 0.82
        oval white 0.36 0.34 0.76 0.82
        oval black 0.74 0.12 1 0.56
        oval white 0.72 0.04 0.9 0.24
    """),
    "cow": _shape(21, "animal", (18, 22), 1.45, "white brown", """
        rect main 0.12 0.62 0.2 1
        rect main 0.24 0.62 0.32 1
        rect main 0.6 0.62 0.68 1
        rect main 0.7 0.62 0.78 1
        rect main 0.08 0.24 0.8 0.7
        oval black 0.16 0.24 0.4 0.52
        oval black 0.46 0.36 0.66 0.66
        oval pink 0.46 0.66 0.6 0.78
        line black 0.06 0.09 0.28 0.02 0.6
        poly main 0.72 0.12 0.96 0.12 0.98 0.5 0.78 0.5
        rect pink 0.8 0.4 1 0.54
        poly steel 0.74 0.14 0.68 0 0.8 0.1
        poly steel 0.94 0.14 1 0 0.88 0.1
    """),
    "umbrella": _shape(28, "accessory", (20, 26), 1.1, "red blue yellow purple green", """
        rect dark 0.47 0.3 0.53 1
        pie main 0 0.04 1 0.9
        pie white 0.32 0.04 0.68 0.9
        rect dark 0.47 0 0.53 0.08
    """),
    "skis": _shape(35, "sports", (22, 27), 0.5, "red blue yellow purple", """
        line dark 0.05 0.02 0.12 0.14 0.98
        line dark 0.05 0.98 0.12 0.86 0.98
        poly main 0.24 1 0.24 0.14 0.34 0 0.46 0.14 0.46 1
        poly main 0.56 1 0.56 0.14 0.66 0 0.78 0.14 0.78 1
        rect black 0.24 0.54 0.46 0.68
        rect black 0.56 0.54 0.78 0.68
    """),
    "sports ball": _shape(37, "sports", (9, 11), 1.0, "white red blue", """
        oval main 0 0 1 1
        oval black 0.34 0.34 0.66 0.66
        oval black 0.06 0.14 0.28 0.36
        oval black 0.72 0.14 0.94 0.36
        oval black 0.38 0.78 0.62 0.98
    """),
    "kite": _shape(38, "sports", (19, 24), 0.7, "red yellow purple green pink", """
        line dark 0.03 0.5 0.64 0.36 0.78 0.62 0.88 0.46 1
        poly main 0.5 0 1 0.26 0.5 0.7 0 0.26
        poly blue 0.5 0 1 0.26 0.5 0.26
        poly blue 0.5 0.26 0 0.26 0.5 0.7
        poly main 0.3 0.74 0.5 0.8 0.3 0.88
    """),
    "surfboard": _shape(42, "sports", (25, 30), 0.34, "yellow red green white pink", """
        poly main 0.5 0 0.84 0.16 1 0.5 0.86 0.84 0.5 1 0.14 0.84 0 0.5 0.16 0.16
        rect blue 0.4 0.06 0.6 0.94
        rect dark 0.06 0.62 0.94 0.68
    """),
    "bottle": _shape(44, "kitchen", (15, 19), 0.38, "green blue brown", """
        rect main 0.34 0.04 0.66 0.4
        oval main 0.06 0.26 0.94 0.56
        rect main 0.06 0.4 0.94 1
        rect white 0.06 0.56 0.94 0.8
        rect amber 0.3 0 0.7 0.1
    """),
    "cup": _shape(47, "kitchen", (10, 12), 1.1, "white red blue yellow", """
        ring main 0.58 0.24 1 0.78
        poly main 0.02 0.1 0.76 0.1 0.66 1 0.12 1
        oval brown 0.04 0 0.74 0.24
    """),
    "bowl": _shape(51, "kitchen", (9, 11), 1.8, "blue white pink green", """
        oval amber 0.14 0 0.5 0.6
        oval red 0.42 0.02 0.84 0.6
        poly main 0 0.3 1 0.3 0.74 0.9 0.26 0.9
        rect main 0.34 0.86 0.66 1
    """),
    "apple": _shape(53, "food", (9, 11), 0.95, "red green", """
        oval main 0 0.2 0.64 0.98
        oval main 0.36 0.2 1 0.98
        line brown 0.1 0.5 0.3 0.54 0
        oval leaf 0.54 0.02 0.9 0.2
        oval white 0.16 0.36 0.32 0.54
    """),
    "pizza": _shape(59, "food", (10, 13), 1.9, "yellow", """
        oval clay 0 0 1 1
        oval cheese 0.1 0.12 0.9 0.84
        oval red 0.24 0.2 0.4 0.44
        oval red 0.56 0.18 0.72 0.42
        oval red 0.4 0.52 0.56 0.76
        oval leaf 0.66 0.52 0.76 0.66
    """),
    "chair": _shape(62, "furniture", (20, 25), 0.62, "brown red blue black", """
        rect main 0.06 0 0.24 1
        rect main 0.1 0.06 0.26 0.54
        rect main 0.78 0.56 0.94 1
        rect main 0.06 0.5 0.96 0.66
        rect amber 0.24 0.44 0.96 0.54
    """),
    "couch": _shape(63, "furniture", (18, 22), 1.9, "red blue green brown purple", """
        rect dark 0.08 0.86 0.16 1
        rect dark 0.84 0.86 0.92 1
        rect main 0.1 0.02 0.9 0.6
        rect main 0 0.3 0.16 0.9
        rect main 0.84 0.3 1 0.9
        rect main 0.1 0.56 0.9 0.9
        rect white 0.18 0.32 0.34 0.58
        line dark 0.04 0.5 0.06 0.5 0.88
        line dark 0.04 0.16 0.6 0.84 0.6
    """),
    "potted plant": _shape(64, "furniture", (20, 25), 0.75, "green", """
        oval leaf 0.3 0 0.7 0.46
        oval leaf 0 0.14 0.46 0.5
        oval leaf 0.54 0.14 1 0.5
        oval leaf 0.12 0.36 0.88 0.64
        rect leaf 0.44 0.5 0.56 0.7
        poly clay 0.16 0.64 0.84 0.64 0.7 1 0.3 1
        rect brown 0.12 0.62 0.88 0.72
    """),
    "dining table": _shape(67, "furniture", (17, 20), 1.9, "brown white", """
        rect main 0.08 0.16 0.18 1
        rect main 0.82 0.16 0.92 1
        rect dark 0.04 0.2 0.96 0.32
        rect main 0 0 1 0.22
    """),
    "tv": _shape(72, "electronic", (17, 20), 1.45, "black", """
        rect black 0 0 1 0.82
        rect blue 0.07 0.09 0.93 0.73
        poly glass 0.12 0.14 0.5 0.14 0.16 0.6
        rect black 0.44 0.82 0.56 0.92
        rect black 0.26 0.9 0.74 1
    """),
    "laptop": _shape(73, "electronic", (13, 16), 1.4, "gray black", """
        rect main 0.16 0 0.84 0.66
        rect glass 0.22 0.08 0.78 0.58
        poly main 0.16 0.68 0.84 0.68 1 1 0 1
        poly dark 0.2 0.74 0.8 0.74 0.86 0.88 0.14 0.88
    """),
    "book": _shape(84, "indoor", (11, 14), 1.25, "red blue green purple", """
        poly main 0 0.1 0.5 0.2 1 0.1 1 0.92 0.5 1 0 0.92
        poly white 0.08 0.06 0.47 0.16 0.47 0.88 0.08 0.8
        poly white 0.53 0.16 0.92 0.06 0.92 0.8 0.53 0.88
        line gray 0.05 0.16 0.3 0.4 0.36
        line gray 0.05 0.16 0.52 0.4 0.58
        line gray 0.05 0.6 0.36 0.84 0.3
        line gray 0.05 0.6 0.58 0.84 0.52
    """),
    "clock": _shape(85, "indoor", (13, 15), 1.0, "black red brown", """
        oval main 0 0 1 1
        oval white 0.13 0.13 0.87 0.87
        line black 0.09 0.5 0.5 0.5 0.2
        line black 0.09 0.5 0.5 0.72 0.6
    """),
    "oven": _shape(79, "appliance", (22, 26), 0.9, "white gray black", """
        rect main 0 0.06 1 1
        rect black 0.04 0 0.4 0.07
        rect black 0.6 0 0.96 0.07
        oval red 0.08 0.13 0.22 0.26
        oval red 0.32 0.13 0.46 0.26
        oval red 0.56 0.13 0.7 0.26
        oval red 0.8 0.13 0.94 0.26
        rect dark 0.12 0.4 0.88 0.86
        rect amber 0.2 0.5 0.8 0.78
        rect steel 0.12 0.31 0.88 0.37
    """),
    "refrigerator": _shape(82, "appliance", (33, 38), 0.52, "white gray red", """
        rect main 0 0 1 0.98
        rect dark 0 0.34 1 0.37
        rect dark 0.12 0.1 0.22 0.28
        rect dark 0.12 0.44 0.22 0.7
        rect dark 0.06 0.96 0.94 1
    """),
}
# fmt: on
