"""How many captions a second the scorer reads."""

import random
import time
from dataclasses import dataclass

from kvtune.chair.scorer import SCORER, ChairScorer
from kvtune.chair.vocabulary import load_vocabulary

_OPENINGS = [
    "The image features {a} {adjective} {object} in the middle of {place}",
    "In this {adjective} scene, {number} {objects} can be seen near {a} {object}",
    "The main focus of the picture is {a} {object}, which is placed on top of {a} {adjective} {object}",
]
_SENTENCES = [
    "There are {number} {objects} scattered around {place}, some of them closer to the {object}",
    "To the {side} of the {object}, {a} {adjective} {object} is partially visible",
    "{number} other {objects} stand in the background, adding to the {adjective} atmosphere of {place}",
    "A person is seated next to {a} {object}, holding {a} {object} and looking at the {objects}",
    "One of the {objects} is located on the {side}, while another {object} is further away",
    'A sign on the {side} reads "{object}"; it\'s hanging above the {objects}',
    "The {adjective} {object} doesn't seem to belong to the well-lit {place}",
]
_FILLERS = {
    "adjective": "busy colorful cozy large lively modern old parked small wooden".split(),  # noqa: SIM905
    "place": ["a city street", "the dining room", "a snow-covered field", "the kitchen", "a parking lot", "the beach"],
    "number": ["two", "three", "several", "at least 13", "a couple of", "numerous"],
    "side": ["left side", "right side", "far end", "top-left corner"],
}


@dataclass(frozen=True)
class ScoreBench:
    """Speed of the scorer, as ``kvtune bench score --json`` prints it.

    Attributes
    ----------
    captions
        Captions scored, each different, each read once.
    words
        Mean tokens a caption.
    seconds, cpu_seconds
        Wall-clock and processor time of reading and scoring them, one thread, the reader's set-up included.
    captions_per_second
        Captions a second of one core, by processor time: what else runs on the machine does not count.
    scorer
        Version of the scorer.
    """

    captions: int
    words: float
    seconds: float
    cpu_seconds: float
    captions_per_second: float
    scorer: str = SCORER


def bench_score(captions: int, words: int = 90, seed: int = 0) -> ScoreBench:
    """Score that many different captions and take the time.

    Parameters
    ----------
    captions
        How many.
    words
        Words a caption has at least.
    seed
        Seed of the captions.
    """
    records = [
        {"image_id": place, "caption": text} for place, text in enumerate(made_up_captions(captions, words, seed))
    ]
    ground_truth = dict.fromkeys(range(captions), ("person", "chair", "dining table"))
    wall, cpu = time.perf_counter(), time.process_time()
    score = ChairScorer(ground_truth).score(records)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return ScoreBench(captions, score.mean_words, seconds, cpu_seconds, captions / cpu_seconds)


def made_up_captions(captions: int, words: int = 90, seed: int = 0) -> list[str]:
    """Different captions of several sentences about random objects, in two paragraphs as models write them."""
    generator = random.Random(seed)
    names = sorted(name for name in load_vocabulary().category_of if name.isalpha())
    found: dict[str, None] = {}
    while len(found) < captions:
        sentences = [_fill(generator.choice(_OPENINGS), names, generator)]
        while sum(sentence.count(" ") + 1 for sentence in sentences) < words:
            sentences.append(_fill(generator.choice(_SENTENCES), names, generator))
        middle = len(sentences) // 2
        found[f"{'. '.join(sentences[:middle])}.\n\n{'. '.join(sentences[middle:])}."] = None
    return list(found)


def _fill(sentence: str, names: list[str], generator: random.Random) -> str:
    first, second = generator.sample(names, 2)
    chosen = {slot: generator.choice(options) for slot, options in _FILLERS.items()}
    filled = sentence.format(a="an" if first[0] in "aeiou" else "a", object=first, objects=second + "s", **chosen)
    return filled[0].upper() + filled[1:]
