"""Where in a caption its mentions stand, to mark them."""

import re
from functools import lru_cache
from itertools import pairwise

from kvtune.chair.reader import CaptionReader
from kvtune.chair.tokens import word_tokenize

Span = tuple[int, int, str]
"""Start, end (excluded) and category of a mention, in characters of the caption."""


class MentionFinder:
    """Finds the mentions that :class:`~kvtune.chair.reader.CaptionReader` counts.

    The reader says which categories a caption mentions, in order; this says where. A word is looked at alone and
    joined with its neighbour, and the words found are matched with what the reader counts, so that a word that does
    not count where it stands ("seat" beside a toilet) is no mention here either.

    Examples
    --------
    >>> MentionFinder()("A hot dog beside a dog.")
    [(2, 9, 'hot dog'), (19, 22, 'dog')]
    """

    def __init__(self) -> None:
        self._reader = CaptionReader()
        # Captions have few different pairs of words; each is looked up once.
        self._look = lru_cache(maxsize=200_000)(self._look_up)

    def __call__(self, caption: str) -> list[Span]:
        """The mentions of a caption from left to right: their categories are those that the reader counts, in order.

        A mention whose word cannot be located has an empty span.
        """
        found: list[Span] = []
        candidates = self._candidates(caption)
        at = 0
        for category in self._reader.read(caption).mentions:
            place = next((i for i in range(at, len(candidates)) if candidates[i][2] == category), None)
            if place is None:
                end = found[-1][1] if found else 0
                found.append((end, end, category))
            else:
                found.append(candidates[place])
                at = place + 1
        return found

    def _candidates(self, caption: str) -> list[Span]:
        """Every word, or pair of words that the reader joins, which mentions something by itself."""
        words = _locate(caption)
        found = []
        joined = False
        for (start, end, word), (_, next_end, following) in pairwise([*words, (0, 0, "")]):
            if joined:
                joined = False
                continue
            category, joined = self._look(word, following)
            if category:
                found.append((start, next_end if joined else end, category))
        return found

    def _look_up(self, word: str, following: str) -> tuple[str, bool]:
        """The category that a word mentions ("" for none), and whether it is joined with the word that follows."""
        alone, after, pair = map(self._reader.read, (word, following, f"{word} {following}"))
        joined = pair.words < alone.words + after.words
        mentions = pair.mentions if joined else alone.mentions
        return mentions[0] if mentions else "", joined


def _locate(caption: str) -> list[Span]:
    """The tokens of a caption that have a letter or digit, with their places."""
    lower = caption.lower()
    if len(lower) != len(caption):  # a few capitals become two characters
        lower = "".join(letter.lower()[:1] for letter in caption)
    return [
        (chunk.start() + start, chunk.start() + end, token)
        for chunk in re.finditer(r"\S+", lower)
        for start, end, token in _tokens(chunk.group())
    ]


@lru_cache(maxsize=100_000)
def _tokens(chunk: str) -> tuple[Span, ...]:
    """What :func:`_locate` finds in a part of a caption without spaces."""
    found = []
    at = 0
    for token in word_tokenize(chunk):
        start = chunk.find(token, at) if any(map(str.isalnum, token)) else -1
        if start >= 0:
            at = start + len(token)
            found.append((start, at, token))
    return tuple(found)
