"""Sentences of a lower-cased caption, split where NLTK's Punkt splits them (Kiss and Strunk, 2006).

Sentence breaks matter because only a sentence's last period is split off its word: "a dog. the cat" holds the token
"dog", while an unbroken "etc. the" keeps "etc." as one token. Lower case makes Punkt simple: its evidence for a break
after an abbreviation is a capital, so there is never one; a number or a single letter with a period ("1. a dog") breaks
no sentence before a lower-case word; every other word with a period ends its sentence.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

# Abbreviations of English newspapers. They touch the word count alone: none is in the vocabulary.
_ABBREVIATION = re.compile(
    r"(?:.*-)?(?:a\.m|ave|capt|co|col|corp|dr|ft|gen|gov|inc|jr|lt|ltd|mr|mrs|ms|mt|p\.m|prof|rep|rev|sen|sgt|sr|st"
    r"|u\.k|u\.s|vs)"
)
_ENDS = ".?!"
# Besides white space, what may follow an end of a sentence; also what ends a word.
_AFTER = r"[)\";}\]*:@'({\[‘’“”«»?!]"
_WORD_WITH_END = re.compile(r"(?<!\S)([^\s.?!]*[.?!]\S*)(?=\s+(\S+)|)")
_POSSIBLE_END = re.compile(rf"[.?!](?={_AFTER})")
_DOTS_OR_DASHES = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_TOKEN = re.compile(
    rf"{_DOTS_OR_DASHES}"
    r"|[^\s(\"`{\[:;&#*@)}\]\-,]\S*?"
    rf"(?=\s|$|{_AFTER}|{_DOTS_OR_DASHES}|,(?:$|\s|{_AFTER}|{_DOTS_OR_DASHES}))"
    r"|\S"
)
_NUMBER_OR_LETTER = re.compile(r"-?[.,]?\d[\d,.-]*|[^\W\d]")
_SPACE = re.compile(r"\s*")
_CLOSING = re.compile(r"[\"')\]}‘’“”«»]+?(?:\s+|(?=--)|$)", re.MULTILINE)


def split_sentences(text: str) -> list[str]:
    """Split lower-cased text into sentences.

    Parameters
    ----------
    text
        Lower-cased text, line breaks and all.

    Returns
    -------
    list of str
        The sentences in order, each without white space around it.
    """
    sentences = []
    start = 0
    for end in _breaks(text):
        # Quotes and brackets that close what the sentence opened belong to it.
        after = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        closing = _CLOSING.match(text, after)
        stop = after + len(closing.group().rstrip()) if closing else end
        sentences.append(text[start:stop].strip())
        start = closing.end() if closing else after
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _breaks(text: str) -> Iterator[int]:
    """Positions after which a sentence ends, the end of the text left out."""
    for found in _WORD_WITH_END.finditer(text):
        word, following = found.groups()
        if following and word[-1] in _ENDS:
            end, context = len(word), f"{word} {following}"
        else:
            # Of several possible ends inside a chunk, Punkt looks at the last.
            inside = [possible.end() for possible in _POSSIBLE_END.finditer(word)]
            if not inside:
                continue
            end, context = inside[-1], word[: inside[-1] + 1]
        if _holds_break(context):
            yield found.start() + end


def _holds_break(context: str) -> bool:
    tokens = _TOKEN.findall(context)
    return any(_ends_sentence(token, following) for token, following in pairwise(tokens))


def _ends_sentence(token: str, following: str) -> bool:
    if token in _ENDS:
        return True
    if not token.endswith(".") or token.endswith(".."):
        return False
    word = token[:-1]
    if _ABBREVIATION.fullmatch(word):
        return False
    if _NUMBER_OR_LETTER.fullmatch(word):
        return not (following[0].islower() or following in ";:,.!?")
    return True
