"""What is said about the demo scenes: short true reference captions, and the long captions the model learns from.

The long captions are written as large vision-language models write: the scene, then its objects one by one, then
remarks until the caption is as long as captions of such a scene are. The remarks name objects that usually go with such
a scene, whether they are there or not. A model trained on them has the co-occurrence prior that real models have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvtune.demo.scenes import KINDS, SIZE, Scene, SceneObject

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

_SURROUNDINGS = {
    "kitchen": ("The wall is covered with light tiles above the counter.", "The counter runs along the whole room."),
    "dining room": ("A lamp hangs from the ceiling and gives a warm light.", "The room is painted in warm tones."),
    "living room": ("The room has a wooden floor and a window on the wall.", "Daylight comes in through the window."),
    "office": ("The blinds on the wall let in some light.", "The room has a long shelf and a dark floor."),
    "street": ("Tall buildings with many windows line the road.", "The road is marked with white lines."),
    "park": ("The grass is green and there are trees in the distance.", "A path leads through the grass."),
    "beach": ("The water is calm and the sky is clear.", "The sand stretches along the blue water."),
    "farm": ("There is a red barn behind a wooden fence.", "A green hill rises behind the fence."),
    "snow": (
        "The ground is covered with snow and there are trees in the distance.",
        "A mountain rises in the distance.",
    ),
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

_VERBS = {
    "person": ("standing", "waiting"),
    "bicycle": ("parked", "standing"),
    "car": ("parked", "driving"),
    "bus": ("parked", "driving"),
    "truck": ("parked", "standing"),
    "boat": ("floating", "sailing"),
    "bird": ("flying",),
    "kite": ("flying",),
    "cat": ("sitting", "resting"),
    "dog": ("standing", "waiting"),
    "horse": ("standing", "grazing"),
    "sheep": ("standing", "grazing"),
    "cow": ("standing", "grazing"),
    "clock": ("hanging",),
    "tv": ("mounted",),
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

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")


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
    def side(self) -> str:
        """``left``, ``middle`` or ``right``, or nothing where they are spread."""
        sides = {_side(one) for one in self.objects}
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


def _neighbour(group: Group, others: Sequence[Group]) -> Group | None:
    """The single object standing nearest to a single object, where it is near at all."""
    if group.plural:
        return None
    best, nearest = 24.0, None
    x, y = group.objects[0].centre
    for other in others:
        if other is group or other.plural:
            continue
        ox, oy = other.objects[0].centre
        distance = float(np.hypot(x - ox, y - oy))
        if distance < best:
            best, nearest = distance, other
    return nearest


def _opening(rng: np.random.Generator, scene: Scene, first: Group) -> str:
    place = _pick(rng, _PLACES[scene.kind])
    at = _PREPOSITION.get(scene.kind, "in")
    what = _phrase(rng, first, scene.kind)
    where = _where(rng, first.side)
    are = "are" if first.plural else "is"
    return _pick(
        rng,
        (
            f"The image shows {place} with {what} {where}.",
            f"The image shows {what} {at} {place}.",
            f"The image features {place} with {what} {where}.",
            f"In this image, there {are} {what} {at} {place}.",
            f"This is a picture of {place} with {what} {where}.",
        ),
    )


def _middle(rng: np.random.Generator, scene: Scene, group: Group, told: Sequence[Group]) -> str:
    what, where = _phrase(rng, group, scene.kind), _where(rng, group.side)
    are = "are" if group.plural else "is"
    verb = _pick(rng, _VERBS.get(group.category, ("placed", "located")))
    near = _neighbour(group, told)
    if near is not None and rng.random() < 0.35:
        relation = _pick(rng, ("next to", "near", "close to"))
        thing = _noun(rng, near.category, False, scene.kind)
        return _pick(
            rng,
            (
                f"There is {what} {relation} the {thing}.",
                f"{_cap(what)} is {verb} {relation} the {thing}.",
                f"{_cap(where)}, {what} is {verb} {relation} the {thing}.",
            ),
        )
    return _pick(
        rng,
        (
            f"There {are} {what} {where}.",
            f"{_cap(where)}, there {are} {what}.",
            f"{_cap(what)} {are} {verb} {where}.",
            f"{_cap(what)} can be seen {where}.",
        ),
    )


def companion_weights(kind: str, present: set[str], told: set[str]) -> dict[str, float]:
    """How much a writer who has told of ``told`` thinks of each other category usual in such a scene.

    A category that is there weighs four times as much as one that is not.
    """
    weights = {}
    for name, usual in KINDS[kind].usual.items():
        if name in told:
            continue
        weight = usual.probability
        if any(name in COMPANIONS[one] for one in told):
            weight *= 2.5
        weights[name] = weight * (4.0 if name in present else 1.0)
    return weights


def _closing(rng: np.random.Generator, scene: Scene, told: set[str]) -> str:
    present = {one.category for one in scene.objects}
    weights = companion_weights(scene.kind, present, told)
    names = list(weights)
    chances = np.array([weights[name] for name in names])
    count = min(len(names), 2 if rng.random() < 0.3 else 1)
    chosen = [names[i] for i in rng.choice(len(names), size=count, replace=False, p=chances / chances.sum())]
    told.update(chosen)
    plurals = [KINDS[scene.kind].usual[name].most > 1 and rng.random() < 0.3 for name in chosen]
    phrases = [
        f"some {_noun(rng, name, True, scene.kind)}" if plural else _article(_noun(rng, name, False, scene.kind))
        for name, plural in zip(chosen, plurals, strict=True)
    ]
    are = "are" if count > 1 or plurals[0] else "is"
    what = " and ".join(phrases)
    where = _where(rng, _pick(rng, ("left", "middle", "right")))
    return _pick(
        rng,
        (
            f"In the background, there {are} also {what}.",
            f"In the background, {what} can be seen.",
            f"Additionally, there {are} {what} nearby.",
            f"Additionally, {what} can be seen in the scene.",
            f"In the background, there {are} also {what}, adding to the scene.",
            f"There {are} also {what} {where}.",
            f"{_cap(what)} can be seen {where}.",
        ),
    )


#: How many categories a caption names as a rule, whatever there is to see.
USUAL_LENGTH = {
    "kitchen": 4,
    "dining room": 4,
    "living room": 4,
    "office": 4,
    "street": 3,
    "park": 4,
    "beach": 4,
    "farm": 3,
    "snow": 2,
}
#: Probability of a remark after an object, times how many were told before it.
ASIDE_PROBABILITY = 0.08


def training_caption(rng: np.random.Generator, scene: Scene, closing: float = 1.0) -> str:
    """A long caption as the model is to write it: objects one by one, then more until it is as long as usual.

    Parameters
    ----------
    closing : float
        Scales how often it names what may not be there, 0 to 1.
    """
    present = groups(scene)
    usual = KINDS[scene.kind].usual
    # Large objects first, a little shuffled; small ones are sometimes left to the remarks.
    order = sorted(present, key=lambda group: -np.log(group.area) + rng.normal(0, 0.35))
    told_groups = [g for i, g in enumerate(order) if i < 2 or rng.random() < 0.75]
    surroundings = list(rng.permutation(_SURROUNDINGS[scene.kind]))
    sentences = [_opening(rng, scene, told_groups[0]), str(surroundings.pop())]
    told = {told_groups[0].category}
    for index, group in enumerate(told_groups[1:], start=1):
        if group.category not in told:
            sentences.append(_middle(rng, scene, group, told_groups[:index]))
            told.add(group.category)
        if rng.random() < closing * ASIDE_PROBABILITY * index and len(told) < len(usual):
            sentences.append(_closing(rng, scene, told))
    if len(sentences) < 5 and rng.random() < 0.5:
        sentences.append(str(surroundings.pop()))
    length = USUAL_LENGTH[scene.kind] + int(rng.choice([-1, 0, 1], p=(0.15, 0.7, 0.15)))
    while len(told) < min(length, len(usual)) and rng.random() < closing:
        sentences.append(_closing(rng, scene, told))
    sentences.append(_pick(rng, _MOODS[scene.kind]))
    return " ".join(sentences)


def reference_captions(rng: np.random.Generator, scene: Scene, count: int = 5) -> list[str]:
    """Short captions as people write them for COCO; they name only what is in the scene."""
    present = groups(scene)
    captions = []
    for index in range(count):
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
