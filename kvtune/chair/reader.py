"""From a caption to the objects that it mentions.

A caption becomes a string of symbols, one character a token: the words of the vocabulary and of its pairs have a
character each, by lemma, most others share one. Its length is the number of tokens, joining pairs is a substitution,
and mentions are what lies in the vocabulary's range of characters. Nearly all work is done by str and re; what is done
for each word is one look-up.
"""

import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import NamedTuple

from kvtune.chair.sentences import split_sentences
from kvtune.chair.tokens import sentence_tokens, word_tokenize
from kvtune.chair.vocabulary import load_vocabulary

_OTHER = "."
_UNKNOWN = "!"
_FIRST_SYMBOL = 0xE000  # Unicode's private use area
MOST_CHUNKS = 200_000

# A word with the punctuation that usually touches one, or a bullet. Chunks beside such a chunk change none of its
# tokens, but for what its period means.
_PLAIN = re.compile(r"(?!.*'.*')[(\[\"“*#]*[a-z0-9]+(?:[-'’/&,:._][a-z0-9]+)*[.,!?;:\"'”’)\]*]*|[-*#&/|+=–—•]+")


class Reading(NamedTuple):
    """What a caption says.

    Attributes
    ----------
    words
        Tokens after joining pairs, punctuation included, a toilet's seats not.
    mentions
        The category of each mention, in order and as often as it is mentioned.
    """

    words: int
    mentions: list[str]


class CaptionReader:
    """Reads captions as CHAIR's reference scorer does: tokens, lemmas, joined pairs, categories.

    Parameters
    ----------
    verbs
        Whether forms of verbs count by their lemma ("skiing" mentions skis). They do in the captions that the
        reference scores. The reference captions behind its ground truth were only singularised: there "a dog tied
        to a post" puts no tie in the picture.
    """

    def __init__(self, verbs: bool = True) -> None:
        vocabulary = load_vocabulary()
        new_symbol = map(chr, count(_FIRST_SYMBOL))
        words = {name: next(new_symbol) for name in vocabulary.category_of}
        self._category = {symbol: vocabulary.category_of[name] for name, symbol in words.items()}
        self._mention = re.compile(f"[{min(self._category)}-{max(self._category)}]")
        for word in sorted({word for pair in vocabulary.pairs for word in pair} - words.keys()):
            words[word] = next(new_symbol)
        self._joined = {words[a] + words[b]: words.get(joined, _OTHER) for (a, b), joined in vocabulary.pairs.items()}
        self._pair = re.compile("|".join(self._joined))
        self._toilet, self._seat = words["toilet"], words["seat"]

        lemmas = {**vocabulary.nouns, **(vocabulary.verbs if verbs else {})}
        symbols = {form: words[lemma] for form, lemma in lemmas.items()}
        # Forms whose reading depends on the words beside them keep a symbol of their own until these are known.
        lost = vocabulary.lost if verbs else ()
        forms = {form: next(new_symbol) for form in sorted({form for rule in lost for form in rule.forms})}
        self._lemma_of = {symbol: words[lemmas[form]] for form, symbol in forms.items()}
        symbols |= forms
        for word in sorted({word for rule in lost for word in rule.after | rule.before} - symbols.keys()):
            symbols[word] = next(new_symbol)
        rules = []
        for rule in lost:
            some, after, before = (_any_of(symbols, group) for group in (rule.forms, rule.after, rule.before))
            rules += [f"(?<={after}{some})"] if rule.after else []
            rules += [f"(?<={some})(?={before})"] if rule.before else []
        self._ambiguous = re.compile(_any_of(symbols, forms)) if forms else None
        self._lost = re.compile(f"{_any_of(symbols, forms)}(?:{'|'.join(rules)})") if forms else None

        self._symbols = symbols
        self._chunks = _Chunks(symbols, _chunk_tokens)
        self._inner_chunks = _Chunks(symbols, _inner_chunk_tokens)

    def read(self, caption: str) -> Reading:
        """Read one caption."""
        code = self._encode(caption.lower())
        if self._pair.search(code):
            code = self._pair.sub(lambda pair: self._joined[pair.group()], code)
        if self._toilet in code and self._seat in code:
            code = code.replace(self._seat, "")  # a toilet's seat is no chair
        return Reading(len(code), [self._category[symbol] for symbol in self._mention.findall(code)])

    def _encode(self, text: str) -> str:
        """One symbol for each token of lower-cased text."""
        code = "".join(map(self._chunks.__getitem__, text.split()))
        if _UNKNOWN in code:
            code = "".join(map(self._encode_sentence, split_sentences(text)))
        if self._ambiguous and self._lost and self._ambiguous.search(code):
            code = self._lost.sub(_OTHER, code)
            code = self._ambiguous.sub(lambda form: self._lemma_of[form.group()], code)
        return code

    def _encode_sentence(self, sentence: str) -> str:
        *inner, last = sentence.split()
        code = "".join(map(self._inner_chunks.__getitem__, inner)) + self._chunks[last]
        return _encode_tokens(self._symbols, sentence_tokens(sentence)) if _UNKNOWN in code else code


class _Chunks(dict[str, str]):
    """Symbols of what stands between two spaces, for every such chunk met so far; :data:`_UNKNOWN` if it depends."""

    def __init__(self, symbols: Mapping[str, str], tokens_of: Callable[[str], list[str] | None]) -> None:
        super().__init__()
        self._symbols = symbols
        self._tokens_of = tokens_of

    def __missing__(self, chunk: str) -> str:
        if len(self) >= MOST_CHUNKS:
            self.clear()
        tokens = self._tokens_of(chunk)
        self[chunk] = code = _UNKNOWN if tokens is None else _encode_tokens(self._symbols, tokens)
        return code


def _chunk_tokens(chunk: str) -> list[str] | None:
    """A chunk's tokens wherever it stands. None if that matters: "1." ends no sentence before a lower-case word."""
    if not _PLAIN.fullmatch(chunk):
        return None
    tokens = word_tokenize(chunk)
    return tokens if "." not in chunk or word_tokenize(f"{chunk} x") == [*tokens, "x"] else None


def _inner_chunk_tokens(chunk: str) -> list[str] | None:
    """A chunk's tokens before the last chunk of its sentence. None if the sentence must be seen."""
    return sentence_tokens(f"{chunk} x")[:-1] if _PLAIN.fullmatch(chunk) else None


def _encode_tokens(symbols: Mapping[str, str], tokens: list[str]) -> str:
    return "".join([symbols.get(token, _OTHER) for token in tokens])


def _any_of(symbols: Mapping[str, str], words: frozenset[str] | dict[str, str]) -> str:
    """A regular expression for the symbol of one of these words."""
    return "[" + "".join(symbols[word] for word in sorted(words)) + "]"
