"""The words of CHAIR: categories, joined pairs, forms with their lemmas, and how ambiguous forms are read."""

import functools
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

_FILES = ("vocabulary.toml", "lexicon.tsv", "readings.toml")


@dataclass(frozen=True)
class LostReading:
    """Forms that are not read as their lemma next to certain words.

    Attributes
    ----------
    after, before
        Words; a form right after one of the first or right before one of the second is an ordinary word.
    """

    forms: frozenset[str]
    after: frozenset[str]
    before: frozenset[str]


@dataclass(frozen=True)
class Vocabulary:
    """The words that define the metric.

    Attributes
    ----------
    categories
        The 80 COCO categories, in COCO's order.
    category_of
        Word (a lemma, or two joined words) to its category.
    pairs
        Two lemmas to the word that they become.
    nouns, verbs
        Form to lemma, of the vocabulary's words and those of the pairs. A form is in one of the two. Words stand for
        themselves in ``nouns``.
    lost
        When a form is not read as its lemma.
    digest
        First digits of the SHA-256 of the data files: another vocabulary gives other scores.
    """

    categories: tuple[str, ...]
    category_of: Mapping[str, str]
    pairs: Mapping[tuple[str, str], str]
    nouns: Mapping[str, str]
    verbs: Mapping[str, str]
    lost: tuple[LostReading, ...]
    digest: str


@functools.cache
def load_vocabulary() -> Vocabulary:
    """Read ``vocabulary.toml``, ``lexicon.tsv`` and ``readings.toml``, which lie beside this file."""
    texts = [files("kvtune.chair").joinpath(name).read_text(encoding="utf-8") for name in _FILES]
    words, readings = tomllib.loads(texts[0]), tomllib.loads(texts[2])
    lexicon = [line.split("\t") for line in texts[1].splitlines() if not line.startswith("#")]
    verbs = {form: lemma for form, lemma, part in lexicon if part == "verb"}
    return Vocabulary(
        categories=tuple(words["categories"]),
        category_of={name: key for key, names in words["categories"].items() for name in [key, *names]},
        pairs={(first, second): joined for pair, joined in words["pairs"].items() for first, second in [pair.split()]},
        nouns={form: lemma for form, lemma, part in lexicon if part == "noun"},
        verbs=verbs,
        lost=tuple(_lost_reading(entry, verbs) for entry in readings["lost"]),
        digest=hashlib.sha256("".join(texts).encode()).hexdigest()[:8],
    )


def _lost_reading(entry: dict, verbs: Mapping[str, str]) -> LostReading:
    forms = entry["forms"]
    if isinstance(forms, str):  # an ending: every verb form that has it
        forms = {form for form in verbs if form.endswith(forms.removeprefix("-"))}
    return LostReading(
        forms=frozenset(forms) - frozenset(entry.get("but_not", ())),
        after=frozenset(entry.get("after", ())),
        before=frozenset(entry.get("before", ())),
    )
