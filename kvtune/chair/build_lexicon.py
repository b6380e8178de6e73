"""Writes ``lexicon.tsv``: every form of the vocabulary's words with its lemma.

Run it after a change to ``vocabulary.toml`` or ``readings.toml``, where WordNet 3.0 is installed (Debian's
``wordnet-base``)::

    python -m kvtune.chair.build_lexicon [/usr/share/wordnet]

A form's lemma is what NLTK's ``WordNetLemmatizer`` answers for its part of speech: of the form itself and the results
of WordNet's exception list, or else of one suffix rule, the shortest that WordNet has.
"""

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent

_SUFFIX_RULES = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
}
_SUFFIXES = {part: [rule.split(":") for rule in rules.split()] for part, rules in _SUFFIX_RULES.items()}

HEADER = """\
# Form, lemma, part of speech. Written by build_lexicon.py from WordNet 3.0, vocabulary.toml and readings.toml.
# Forms that are read as nouns or stand for themselves come first, then the forms of verbs.
"""


class WordNet:
    """WordNet's words and irregular forms, for nouns and verbs."""

    def __init__(self, folder: Path) -> None:
        self._words = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        for part in _SUFFIXES:
            lines = (folder / f"index.{part}").read_text().splitlines()
            self._words[part] = {line.split(" ", 1)[0] for line in lines if not line.startswith(" ")}
            exceptions = [line.split() for line in (folder / f"{part}.exc").read_text().splitlines()]
            self._irregular[part] = {form: lemmas for form, *lemmas in exceptions}

    def lemma(self, form: str, part: str) -> str:
        """The lemma of a form as a noun or a verb; the form itself where WordNet has none."""
        found = self._irregular[part].get(form)
        if found is None:
            found = [form.removesuffix(old) + new for old, new in _SUFFIXES[part] if form.endswith(old)]
        known = [word for word in [form, *found] if word in self._words[part]]
        return min(known, key=len, default=form)

    def forms(self, word: str, part: str) -> Iterator[str]:
        """Spellings that may be forms of a word: irregular ones and those that English spelling makes."""
        yield from (form for form, lemmas in self._irregular[part].items() if word in lemmas)
        consonant_y = word.endswith("y") and word[-2] not in "aeiou"
        if part == "noun":
            yield from (word + "s", word + "es")
            if consonant_y:
                yield word[:-1] + "ies"
            if word.endswith("man"):
                yield word[:-2] + "en"
        elif word.endswith("e"):
            yield from (word + "d", word[:-1] + "ing")
            if word.endswith(("oe", "ee", "ye")):
                yield word + "ing"
        else:
            yield from (word + "ed", word + "ing")
            if consonant_y:
                yield word[:-1] + "ied"
            # Not always one of its forms (doubled consonants), but its shortest lemma all the same: coping -> cop.


def read_forms(wordnet: WordNet, words: set[str], not_a_verb: set[str]) -> dict[str, tuple[str, str]]:
    """Forms of the vocabulary's words: form -> (lemma, part of speech).

    Parameters
    ----------
    words
        Single words of the vocabulary and of its pairs.
    """
    lexicon = {}
    candidates = words | {form for word in words for form in wordnet.forms(word, "noun")}
    for form in sorted(candidates):
        lemma = wordnet.lemma(form, "noun")
        if form in words and form in not_a_verb:
            lemma = form
        if lemma in words:
            lexicon[form] = (lemma, "noun")
    for form in sorted({form for word in words for form in wordnet.forms(word, "verb")} - lexicon.keys() - not_a_verb):
        lemma = wordnet.lemma(form, "verb")
        if lemma in words:
            lexicon[form] = (lemma, "verb")
    return lexicon


def main() -> None:
    """Write ``lexicon.tsv``."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    vocabulary = tomllib.loads((HERE / "vocabulary.toml").read_text())
    readings = tomllib.loads((HERE / "readings.toml").read_text())
    names = {name for category, others in vocabulary["categories"].items() for name in [category, *others]}
    words = {name for name in names if " " not in name} | {
        word for pair in vocabulary["pairs"] for word in pair.split()
    }
    lexicon = read_forms(WordNet(folder), words, set(readings["not_a_verb"]))
    lines = [f"{form}\t{lemma}\t{part}\n" for form, (lemma, part) in lexicon.items()]
    (HERE / "lexicon.tsv").write_text(HEADER + "".join(lines))
    print(f"{len(lines)} forms of {len(words)} words")


if __name__ == "__main__":
    main()
