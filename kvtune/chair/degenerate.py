"""Degenerate captions: texts that are no English description, and what they are instead."""

import re
from collections.abc import Sequence

_REASONING_TAG = re.compile(
    r"</?(?:think|thinking|thought|reasoning|analysis|reflection|scratchpad)>|◁/?think▷"
    r"|<\|(?:begin|end)_of_thought\|>",
    re.IGNORECASE,
)
_REASONING_LINE = re.compile(
    r"^[\W_]{0,6}(?:reasoning|thoughts?|thinking|chain of thought|let me think|let's think)\b[^\n.]{0,20}?[:.,]",
    re.IGNORECASE | re.MULTILINE,
)
_QUESTION = re.compile(
    r"^\s*(?:user|human|question|prompt|instruction)\s*:|\bassistant\s*:|\[/?INST\]|<image>|<\|im_start\|>"
    r"|###\s*(?:human|user)\b|\bdescribe (?:this|the) (?:image|picture|photo)|^[^.!?\n]{10,300}\?(?=\s)",
    re.IGNORECASE | re.ASCII,
)
_QUESTION_HAS = (":", "inst]", "<image>", "<|im_start|>", "###", "describe th", "?")
_REFUSAL = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:(?:very|so) )?(?:sorry|unable|not able|afraid|just an?|an? (?:ai|text))\b"
    r"|sorry\b|(?:i |my )apologi[sz]e|my apologies\b|apologies\b|unfortunately\b[, ]+i\b"
    r"|i (?:can['’]?t|cannot|can not|could ?n['’]?t|could not|do ?n['’]?t (?:have|see)|do not (?:have|see)|won['’]?t)\b"
    r"|as an? (?:ai|artificial|(?:large )?language model|text-based)\b"
    r"|it (?:seems|looks|appears)(?: like| that)? you (?:have ?n['’]?t|have not|did ?n['’]?t|did not|forgot)\b"
    r"|(?:it (?:seems|looks|appears)(?: like| that)? )?(?:no|there (?:is|was) no) (?:image|picture|photo)\b"
    r"|please (?:provide|upload|share|attach)\b)",
    re.IGNORECASE,
)
_NOTHING = ("", "none", "null", "nan", "n/a")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-zÀ-ɏḀ-ỿ]")
_FUNCTION_WORDS = frozenset(
    "a the and of is are to with at it its this that there by for from near while they be has have their which several "  # noqa: SIM905
    "two some other another into his her who in on".split()
)
_FUNCTION_SHARE = 0.15
_ENOUGH_WORDS, _ENOUGH_WORDS_TOGETHER = 15, 8


def kinds_of_texts(texts: Sequence[str]) -> list[str | None]:
    """What each text is that is no English description: the kind of :mod:`kvtune.chair.notes`; None for one that is.

    Short texts are in another language only where the words of all texts together hardly are English.
    """
    kinds = [_kind_of(text) for text in texts]
    words = [(0, 0) if kind is not None else _function_words(text) for text, kind in zip(texts, kinds, strict=True)]
    known, together = (sum(counts) for counts in zip(*words, strict=True))
    enough = 1 if _is_foreign(known, together, _ENOUGH_WORDS_TOGETHER) else _ENOUGH_WORDS
    return ["language" if _is_foreign(*each, enough) else kind for kind, each in zip(kinds, words, strict=True)]


def has_reasoning_tag(text: str) -> bool:
    """Whether a text has a reasoning block that is marked by a tag."""
    return _REASONING_TAG.search(text) is not None


def _kind_of(text: str) -> str | None:
    """Why a text is no English description: the kind of note, or None."""
    if text.strip().lower() in _NOTHING:
        return "empty"
    if (("<" in text or "◁" in text) and has_reasoning_tag(text)) or _REASONING_LINE.search(text):
        return "reasoning"
    if _REFUSAL.match(text):
        return "refusals"
    lower = text.lower()
    if any(each in lower for each in _QUESTION_HAS) and _QUESTION.search(text):
        return "question"
    if not text.isascii() and 2 * len(_LATIN.findall(text)) < len(_LETTER.findall(text)):
        return "script"
    return None


def _function_words(text: str) -> tuple[int, int]:
    """How many of a text's words are English function words, and how many words there are."""
    words = text.lower().split()
    return sum(map(_FUNCTION_WORDS.__contains__, words)), sum(word[0].isalpha() for word in words)


def _is_foreign(known: int, words: int, enough: int) -> bool:
    return words >= enough and known < _FUNCTION_SHARE * words
