"""Mentions of objects that a caption denies ("there is no couch"), which CHAIR counts as mentions all the same."""

import re
from collections.abc import Callable

from kvtune.chair.spans import Span

# What denies the noun phrase that follows, up to the noun: articles and adjectives, or nouns of the same list.
_BEFORE = re.compile(
    r"\b(?P<denial>no|without|not|never|neither|nor|lacks?|lacking|(?:devoid|absence|lack|free) of|\w+n[’']t)"
    r"(?P<between>(?:[\s,]+[\w’'-]+){0,8}?)[\s,]*$",
    re.IGNORECASE,
)
# Words that may stand between the two: all that is neither a verb nor the beginning of another phrase.
_OTHER_PHRASE = frozenset(
    "the this that these those his her its their is are was were be been being has had can could will would should may "  # noqa: SIM905
    "might in on at of to for from by near with behind beside under over around through into which who while but if "
    "because as than so only just doubt longer matter one body seen".split()
)
_STATES = ("visible", "present", "shown", "there", "here", "clear")  # "is not visible, a dog is"
_AFTER = re.compile(
    r"\s+(?:(?:is|are|was|were)\s+(?:not|nowhere)|(?:is|are|was|were)n[’']t|(?:is|are)\s+(?:absent|missing))\b"
    r"(?=\s*(?:visible|present|seen|shown|there|here|in|anywhere|to|[.,;]|$))",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:no|not|nor|neither|never|without|lack\w*|devoid|absen\w+|free|missing|nowhere|\w+n[’']t)\b", re.I
)
_CLAUSE_END = re.compile(
    r"[.!?;:\n]|\b(?:but|except)\b|\band\s+(?=(?:an?|some|one|two|three|several)\b)", re.IGNORECASE
)


def denied(caption: str, find: Callable[[str], list[Span]]) -> list[Span]:
    """Those mentions that the caption says are not there.

    Seen are denials right before the noun or a list of nouns ("no couch", "without a car or a truck", "isn't any
    dog") and right after it ("a couch is not visible"), within one clause. This marks; no score depends on it.

    Parameters
    ----------
    find
        Finds its mentions: a :class:`~kvtune.chair.spans.MentionFinder`.
    """
    if not _DENIAL.search(caption):
        return []
    return [span for span in find(caption) if _is_denied(caption, span)]


def _is_denied(caption: str, span: Span) -> bool:
    start, end, _ = span
    if start == end:
        return False
    clause = _CLAUSE_END.split(caption[max(0, start - 120) : start])[-1]
    if before := _BEFORE.search(clause):
        words = before["between"].lower().replace(",", " ").split()
        of_a_subject = before["denial"].lower().endswith("t") and words and words[0] in _STATES
        if not of_a_subject and not any(word in _OTHER_PHRASE or word.endswith("ing") for word in words):
            return True
    return _AFTER.match(caption, end) is not None
