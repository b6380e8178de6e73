"""Words of a caption, as NLTK's ``word_tokenize`` (3.10) splits them: Penn Treebank rules within Punkt's sentences."""

import re

from kvtune.chair.sentences import split_sentences

_OPENING_QUOTE = re.compile(r"^\"|(?<=[ (\[{<])(?:\"|'')")
_OPENING_MARK = re.compile(r"[«“‘„]|`{1,2}")
_LEADING_APOSTROPHE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)")
_LAST_PERIOD = re.compile(r"(?<=[^.])\.(?=[\])}>\"'»”’ ]*$)")
_COMMA_OR_COLON = re.compile(r"([:,])(\D|$)")
_PUNCTUATION = re.compile(r"\.{2,}|[;@#$%&?!‒–—―]")
_CLOSING_APOSTROPHE = re.compile(r"(?<=[^'])'(?= )")
_BRACKET_OR_QUOTE = re.compile(r"[*()\[\]{}<>»”’\"]|--|''")
_CLITIC = re.compile(r"(?<=[^' ])'[smd]?(?= )")
_LONG_CLITIC = re.compile(r"(?<=[^' ])(?:'ll|'re|'ve|n't)(?= )")
_CONTRACTION = re.compile(
    r"\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|d(?='ye\b)|more(?='n\b)|wan(?=na ))(\w+|'\w+)"
)
_OLD_CONTRACTION = re.compile(r"(?<= )('t)(is\b|was\b)")


def word_tokenize(text: str) -> list[str]:
    """Split lower-cased text into tokens.

    Parameters
    ----------
    text
        Lower-cased text, line breaks and all.

    Returns
    -------
    list of str
        Words, clitics (``'s``, ``n't``) and punctuation in order. Double quotes become ```` `` ```` and ``''``.
    """
    return [token for sentence in split_sentences(text) for token in sentence_tokens(sentence)]


def sentence_tokens(sentence: str) -> list[str]:
    """Split one lower-cased sentence into tokens. Only its last period is split off its word."""
    text = _OPENING_MARK.sub(r" \g<0> ", sentence)
    text = _OPENING_QUOTE.sub(" `` ", text)
    text = _LEADING_APOSTROPHE.sub("' ", text)
    text = _LAST_PERIOD.sub(" . ", text.rstrip())
    text = _COMMA_OR_COLON.sub(r" \1 \2", text)
    text = _PUNCTUATION.sub(r" \g<0> ", text)
    text = _CLOSING_APOSTROPHE.sub(" '", text)
    text = _BRACKET_OR_QUOTE.sub(r" \g<0> ", text)
    text = f" {' '.join(text.split())} ".replace('"', "''")
    text = _CLITIC.sub(r" \g<0>", text)
    text = _LONG_CLITIC.sub(r" \g<0>", text)
    text = _CONTRACTION.sub(r" \1 \2 ", text)
    return _OLD_CONTRACTION.sub(r"\1 \2 ", text).split()
