"""The objects that a traced caption names, and those whose ranks are worth a look."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kvtune.chair.reader import CaptionReader
from kvtune.chair.spans import MentionFinder
from kvtune.chair.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from kvtune.captioning.side_by_side import TracedPair
    from kvtune.captioning.trace import Trace


@dataclasses.dataclass(frozen=True)
class Mention:
    """An object that a caption names: at which token, by which word, whether it is in the picture (None: unknown)."""

    position: int
    word: str
    category: str
    in_picture: bool | None


@dataclasses.dataclass(frozen=True)
class TracedObject:
    """A word to look at.

    Attributes
    ----------
    category
        The COCO category that it means; None for a word outside the vocabulary.
    column
        Its place among the words of the image's traces.
    in_picture
        None where the ground truth is unknown.
    """

    word: str
    category: str | None
    column: int
    in_picture: bool | None


def vocabulary_words() -> list[str]:
    """Every word by which CHAIR knows an object, plurals included: those that may turn out to be worth a look."""
    vocabulary = load_vocabulary()
    forms = {form for form, lemma in vocabulary.nouns.items() if lemma in vocabulary.category_of}
    return [*vocabulary.category_of, *sorted(forms.difference(vocabulary.category_of))]


def mentions(trace: Trace, truth: Collection[str] | None, finder: MentionFinder) -> list[Mention]:
    """The objects that a traced caption names, each at the token with which its word begins."""
    text = trace.caption.text
    found = []
    for start, end, category in finder(text):
        position = max(place for place, begin in enumerate(trace.starts) if begin <= start)
        word = text[start:end].lower()
        found.append(Mention(position, word, category, None if truth is None else category in truth))
    return found


def objects_to_show(
    pair: TracedPair, named: Sequence[str], truth: Collection[str] | None, finder: MentionFinder
) -> list[TracedObject]:
    """The objects whose ranks are worth a look.

    Parameters
    ----------
    named
        Words that were asked for. Without any: the objects in the picture and those that a caption names, by the
        category's name and by the words that the captions use, in the order in which they are named.
    """
    columns = {word.text: column for column, word in enumerate(pair.baseline.words)}
    wanted: dict[str, str | None] = {}
    for word in named:
        read = CaptionReader().read(word).mentions
        wanted[word] = read[0] if read else None
    if not named:
        said: dict[str, list[str]] = {}
        for trace in filter(None, (pair.baseline, pair.treated)):
            for mention in mentions(trace, truth, finder):
                said.setdefault(mention.category, []).append(mention.word)
        for category in [*said, *sorted(set(truth or ()).difference(said))]:
            words = dict.fromkeys([*said.get(category, ()), category])
            wanted |= {word: category for word in words if word in columns}
    return [
        TracedObject(word, category, columns[word], None if truth is None or category is None else category in truth)
        for word, category in wanted.items()
    ]
