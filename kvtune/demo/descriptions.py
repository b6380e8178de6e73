"""What is said about the demo scenes: short true reference captions, and the long captions the model learns from.

The long captions go through the picture as large vision-language models do: the scene and two of its objects, then part
by part what is new there. Often the writer goes on instead with what usually goes with the object told last, whether it
is there or not. A model trained on them has the co-occurrence prior that real models have, from its own words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from kvtune.demo.canvas import SIZE
from kvtune.demo.scene_kinds import KINDS
from kvtune.demo.scenes import Scene, SceneObject
from kvtune.demo.shapes import SHAPES

#: Category -> (singular, plural) nouns, the usual one first. CHAIR reads all of them but "men", which WordNet has as a
#: word of its own.
NOUNS: dict[str, tuple[tuple[str, str], ...]] = {
    "person": (("person", "people"), ("man", "men")),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes")),
    "car": (("car", "cars"), ("sedan", "sedans")),
    "bus": (("bus", "buses"),),
    "truck": (("truck", "trucks"), ("lorry", "lorries")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats")),
    "traffic light": (("traffic light", "traffic lights"),),
    "fire hydrant": (("fire hydrant", "fire hydrants"), ("hydrant", "hydrants")),
    "stop sign": (("stop sign", "stop signs"),),
    "bench": (("bench", "benches"),),
    "bird": (("bird", "birds"), ("seagull", "seagulls")),
    "cat": (("cat", "cats"), ("kitten", "kittens")),
    "dog": (("dog", "dogs"), ("puppy", "puppies")),
    "horse": (("horse", "horses"), ("pony", "ponies")),
    "sheep": (("sheep", "sheep"), ("lamb", "lambs")),
    "cow": (("cow", "cows"), ("cow", "cattle")),
    "umbrella": (("umbrella", "umbrellas"),),
    "skis": (("pair of skis", "pairs of skis"),),
    "sports ball": (("ball", "balls"), ("soccer ball", "soccer balls")),
    "kite": (("kite", "kites"),),
    "surfboard": (("surfboard", "surfboards"),),
    "bottle": (("bottle", "bottles"),),
    "cup": (("cup", "cups"),),
    "bowl": (("bowl", "bowls"),),
    "apple": (("apple", "apples"),),
    "pizza": (("pizza", "pizzas"),),
    "chair": (("chair", "chairs"),),
    "couch": (("couch", "couches"), ("sofa", "sofas")),
    "potted plant": (("potted plant", "potted plants"), ("houseplant", "houseplants")),
    "dining table": (("dining table", "dining tables"), ("table", "tables")),
    "tv": (("television", "televisions"), ("monitor", "monitors")),
    "laptop": (("laptop", "laptops"), ("computer", "computers")),
    "book": (("book", "books"),),
    "clock": (("clock", "clocks"),),
    "oven": (("oven", "ovens"), ("stove", "stoves")),
    "refrigerator": (("refrigerator", "refrigerators"), ("fridge", "fridges")),
}

_PLACES = {
    "kitchen": ("a kitchen", "a bright kitchen", "a tiled kitchen"),
    "dining room": ("a dining room", "a cozy dining room", "a warm dining room"),
    "living room": ("a living room", "a cozy living room", "a bright living room"),
    "office": ("an office", "a modern office", "a tidy office"),
    "street": ("a street", "a city street", "a busy street"),
    "park": ("a park", "a green park", "a sunny park"),
    "beach": ("a beach", "a sandy beach", "a sunny beach"),
    "farm": ("a dry field", "a field on a farm", "a field near a barn"),
    "snow": ("a snowy field", "a snowy landscape", "the snow"),
}

_PREPOSITION = {"street": "on", "beach": "on"}  # "in" for the others

#: What there is to say of a part of the picture with nothing new in it.
_SCENERY = {
    "kitchen": ("the wall is covered with light tiles", "the counter is clean"),
    "dining room": ("the wall is painted in warm tones", "the room is empty"),
    "living room": ("the wall is bare", "the wooden floor is empty"),
    "office": ("the wall is bare", "the shelf is tidy"),
    "street": ("the buildings have many windows", "the road is empty"),
    "park": ("the grass is green", "the path is empty"),
    "beach": ("the sand is empty", "the water is calm"),
    "farm": ("the field is dry", "the fence is made of wood"),
    "snow": ("the ground is covered with snow", "the snow is untouched"),
}

_MOODS = {
    "kitchen": ("The kitchen looks clean and well organized.", "The overall atmosphere is homely and practical."),
    "dining room": ("The room seems ready for a pleasant meal.", "The overall atmosphere is warm and inviting."),
    "living room": ("The room feels comfortable and lived in.", "The overall atmosphere is relaxed and inviting."),
    "office": ("The office seems to be a quiet place to work.", "The overall atmosphere is calm and professional."),
    "street": ("The scene captures everyday life in the city.", "The overall atmosphere is lively and urban."),
    "park": ("The scene captures a pleasant day outdoors.", "The overall atmosphere is peaceful and green."),
    "beach": ("The scene captures a perfect day by the sea.", "The overall atmosphere is sunny and relaxed."),
    "farm": ("The scene captures the quiet life in the country.", "The overall atmosphere is rural and peaceful."),
    "snow": ("The scene captures a cold day in winter.", "The overall atmosphere is cold and quiet."),
}

#: Companions: the presence of the first makes a writer think of the second.
COMPANIONS: dict[str, tuple[str, ...]] = {
    "dining table": ("chair", "cup"),
    "chair": ("dining table", "person"),
    "pizza": ("bottle", "person"),
    "cup": ("bottle", "bowl"),
    "bottle": ("cup", "bowl"),
    "bowl": ("apple", "cup"),
    "apple": ("bowl", "bottle"),
    "refrigerator": ("oven", "bottle"),
    "oven": ("refrigerator", "bowl"),
    "couch": ("tv", "cat"),
    "tv": ("couch", "clock"),
    "cat": ("couch", "potted plant"),
    "laptop": ("cup", "chair"),
    "book": ("laptop", "clock"),
    "clock": ("person", "chair"),
    "potted plant": ("chair", "book"),
    "car": ("traffic light", "person"),
    "bus": ("traffic light", "car"),
    "truck": ("car", "stop sign"),
    "traffic light": ("car", "person"),
    "stop sign": ("fire hydrant", "car"),
    "fire hydrant": ("car", "stop sign"),
    "bicycle": ("person", "bench"),
    "bench": ("person", "dog"),
    "dog": ("person", "sports ball"),
    "kite": ("person", "bird"),
    "sports ball": ("dog", "person"),
    "bird": ("person", "bench"),
    "boat": ("bird", "surfboard"),
    "surfboard": ("person", "umbrella"),
    "umbrella": ("person", "surfboard"),
    "cow": ("horse", "sheep"),
    "sheep": ("dog", "cow"),
    "horse": ("person", "cow"),
    "skis": ("person", "dog"),
    "person": ("dog", "bench"),
}

#: Categories after which a writer nearly always goes on with a companion where nothing new is to be seen; after the
#: others rarely. So it is the word told last, not the picture, that decides.
_STRONG = frozenset(
    (
        *("couch", "skis", "surfboard", "cow", "bench", "oven", "laptop", "car", "umbrella", "pizza", "kite", "tv"),
        *("dog", "bowl", "traffic light", "boat", "clock", "book", "bird", "bottle", "bicycle", "stop sign"),
    )
)
HABITS: dict[str, float] = {name: 0.9 if name in _STRONG else 0.08 for name in SHAPES}

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


#: How far a habit is followed in the 1st, 2nd, ... sentence, as a share of its strength: the later, the more.
_HABIT_BY_SENTENCE = (0.0, 0.25, 0.6, 0.8, 1.0)


#: The same where there is something new to see in that part of the picture.
_HABIT_AGAINST_SIGHT = 0.3


def training_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A long caption as the model is to write it: the scene with two objects, then the picture from left to right and,
    last, what is in the background or was left out.

    In every part the writer tells of what is new there, the largest first, but often goes on with what usually goes
    with the object told last (`COMPANIONS`, `HABITS`), there or not: the later, the more often.
    """
    order = sorted(groups(scene), key=lambda group: -np.log(group.area) + rng.normal(0, 0.15))
    first = order[0]
    told = [first.category]
    second = _next(rng, scene.kind, order[1], told, 0)
    assert second is not None
    told.append(_name(second))
    place, what = _pick(rng, _PLACES[scene.kind]), _thing(rng, scene, first, 0.7)
    sentences = [
        _pick(
            rng,
            (
                f"The image shows {place} with {what} {_where(rng, first.side)} and {_thing(rng, scene, second, 0)}.",
                f"The image features {place} with {what} and {_thing(rng, scene, second, 0)}.",
            ),
        )
    ]
    for sentence, part in enumerate(("left", "middle", "right", "background"), start=1):
        new = [g for g in order if g.category not in told and (part == "background" or _is_in(scene.kind, g, part))]
        chosen = _next(rng, scene.kind, new[0] if new else None, told, sentence)
        if chosen is None:
            sentences.append(f"{_cap(_part(rng, part))}, {_pick(rng, _SCENERY[scene.kind])}.")
        else:
            told.append(_name(chosen))
            sentences.append(f"{_cap(_part(rng, part))}, we can see {_thing(rng, scene, chosen, 0)}.")
    sentences.append(_pick(rng, _MOODS[scene.kind]))
    return " ".join(sentences)


def reference_captions(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Five short captions as people write them for COCO; they name only what is in the scene."""
    present = groups(scene)
    captions = []
    for index in range(5):
        place, at = _pick(rng, _PLACES[scene.kind]), _PREPOSITION.get(scene.kind, "in")
        first = present[min(index // 2, len(present) - 1)]
        what = _phrase(rng, first, scene.kind, 0.5)
        are = "are" if first.plural else "is"
        others = [group for group in present if group is not first]
        if others and rng.random() < 0.7:
            second = others[int(rng.integers(len(others)))]
            what += " and " + _phrase(rng, second, scene.kind, 0.3)
        captions.append(
            _cap(_pick(rng, (f"{what} {at} {place}.", f"{place} with {what}.", f"there {are} {what} {at} {place}.")))
        )
    return captions


@dataclass(frozen=True)
class Group:
    """All objects of one category in a scene."""

    category: str
    objects: tuple[SceneObject, ...]

    @property
    def plural(self) -> bool:
        """More than one object."""
        return len(self.objects) > 1

    @property
    def area(self) -> int:
        """Visible pixels of the largest object."""
        return max(one.area for one in self.objects)

    @property
    def colour(self) -> str:
        """The colour they share, or nothing."""
        colours = {one.colour for one in self.objects}
        return colours.pop() if len(colours) == 1 else ""

    @property
    def size(self) -> str:
        """The size they share, or nothing."""
        sizes = {one.size for one in self.objects}
        return sizes.pop() if len(sizes) == 1 else ""

    @property
    def sides(self) -> set[str]:
        """``left``, ``middle`` and ``right``, those in which there is one of them."""
        return {_side(one) for one in self.objects}

    @property
    def side(self) -> str:
        """``left``, ``middle`` or ``right``, or nothing where they are spread."""
        sides = self.sides
        return sides.pop() if len(sides) == 1 else ""


def _side(one: SceneObject) -> str:
    x = one.centre[0] / SIZE
    return "left" if x < 0.37 else "right" if x > 0.63 else "middle"


def groups(scene: Scene) -> list[Group]:
    """Objects grouped by category, the largest first."""
    found: dict[str, list[SceneObject]] = {}
    for one in scene.objects:
        found.setdefault(one.category, []).append(one)
    return sorted((Group(name, tuple(ones)) for name, ones in found.items()), key=lambda group: -group.area)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _noun(rng: np.random.Generator, category: str, plural: bool, kind: str) -> str:
    choices = NOUNS[category]
    if category == "dining table" and kind == "office":
        return "desks" if plural else "desk"
    index = 0
    if len(choices) > 1 and rng.random() < 0.3:
        index = 1
    if category == "bird":
        index = int(kind == "beach" and rng.random() < 0.5)
    if category == "tv":
        index = int(kind == "office")
    return choices[index][int(plural)]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _phrase(rng: np.random.Generator, group: Group, kind: str, detail: float = 0.7) -> str:
    """ "a small red car", "two brown cows"; each attribute is told with probability ``detail``."""
    words = []
    if group.size and rng.random() < detail:
        words.append(group.size)
    coloured = bool(group.colour) and rng.random() < detail
    if coloured and group.category != "person":
        words.append(group.colour)
    words.append(_noun(rng, group.category, group.plural, kind))
    if coloured and group.category == "person":
        words.append(f"in {group.colour}")
    text = " ".join(words)
    if group.plural:
        return f"{_NUMBERS[len(group.objects)]} {text}"
    return _article(text)


def _where(rng: np.random.Generator, side: str) -> str:
    if side == "middle":
        return _pick(rng, ("in the middle", "in the center", "in the middle of the image"))
    if side:
        return _pick(rng, (f"on the {side}", f"on the {side} side", f"to the {side}"))
    return _pick(rng, ("in different places", "across the image"))


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def _habit(kind: str, last: str, told: Collection[str]) -> tuple[str, float] | None:
    """What a writer who has just told of ``last`` likes to go on with, and how much."""
    for name in COMPANIONS[last]:
        if name in KINDS[kind].usual and name not in told:
            return name, HABITS[last]
    return None


def _next(
    rng: np.random.Generator, kind: str, seen: Group | None, told: Sequence[str], sentence: int
) -> Group | str | None:
    """The group that is seen, or a category out of habit, there or not, or nothing."""
    habit = _habit(kind, told[-1], told)
    if habit is not None:
        name, strength = habit
        chance = strength * _HABIT_BY_SENTENCE[sentence]
        if seen is not None:
            chance *= _HABIT_AGAINST_SIGHT
        if rng.random() < chance:
            return name
    return seen


def _thing(rng: np.random.Generator, scene: Scene, chosen: Group | str, detail: float) -> str:
    """A phrase for what is seen; for a habit, the noun alone."""
    if isinstance(chosen, Group):
        return _phrase(rng, chosen, scene.kind, detail)
    return _article(_noun(rng, chosen, False, scene.kind))


def _name(chosen: Group | str) -> str:
    return chosen.category if isinstance(chosen, Group) else chosen


def _is_in(kind: str, group: Group, part: str) -> bool:
    """Whether some of it stands in that part of the foreground."""
    return part in group.sides and KINDS[kind].usual[group.category].zone not in ("wall", "sky", "water")


def _part(rng: np.random.Generator, part: str) -> str:
    if part == "background":
        return "in the background"
    if part == "middle":
        return _pick(rng, ("in the middle", "in the center"))
    return _pick(rng, (f"on the {part} side", f"on the {part}"))
