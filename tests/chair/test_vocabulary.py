"""The data files: the published words, WordNet's lemmas, and decisions that all have an effect."""

import json
import tomllib
from pathlib import Path

import pytest

from kvtune.chair import build_lexicon
from kvtune.chair.vocabulary import load_vocabulary

WORDNET = Path("/usr/share/wordnet")


@pytest.fixture(scope="module")
def vocabulary():
    return load_vocabulary()


def test_words_are_the_published_ones(vocabulary, shared_data):
    published = {}
    for line in (shared_data / "chair" / "synonyms.txt").read_text().splitlines():
        # The reference splits at a comma and one blank: an entry after two blanks begins with one and never matches.
        names = line.strip().split(", ")
        published |= {name: names[0] for name in names if name == name.strip() and name.islower()}
    assert vocabulary.category_of == published
    assert len(vocabulary.categories) == 80


def test_pairs_are_the_references(vocabulary, shared_data):
    published = json.loads((shared_data / "chair" / "double_words.json").read_text())
    two_words = {tuple(pair.split()): joined for pair, joined in published.items() if len(pair.split()) == 2}
    assert vocabulary.pairs == two_words


def test_without_the_published_list(vocabulary):
    assert vocabulary.category_of["sofa"] == "couch"
    assert "cheesecake" not in vocabulary.category_of
    assert vocabulary.pairs["bow", "tie"] == "tie"
    assert set(vocabulary.category_of.values()) == set(vocabulary.categories)


def test_lexicon_is_what_wordnet_says(vocabulary):
    if not (WORDNET / "index.noun").is_file():
        pytest.skip(f"no WordNet in {WORDNET} (Debian's wordnet-base)")
    names = {name for name in vocabulary.category_of if " " not in name}
    words = names | {word for pair in vocabulary.pairs for word in pair}
    readings = tomllib.loads(Path(build_lexicon.HERE, "readings.toml").read_text())
    lexicon = build_lexicon.read_forms(build_lexicon.WordNet(WORDNET), words, set(readings["not_a_verb"]))
    assert {form: lemma for form, (lemma, part) in lexicon.items() if part == "noun"} == vocabulary.nouns
    assert {form: lemma for form, (lemma, part) in lexicon.items() if part == "verb"} == vocabulary.verbs


@pytest.mark.parametrize(
    ("form", "lemma"),
    [
        ("women", "woman"), ("people", "people"), ("children", "child"), ("geese", "goose"), ("mice", "mouse"),
        ("knives", "knife"), ("buses", "bus"), ("skis", "ski"), ("scissors", "scissors"), ("oxen", "ox"),
        ("tvs", "tv"), ("sheep", "sheep"), ("potted", "potted"), ("parking", "parking"), ("stove", "stove"),
    ],
)  # fmt: skip
def test_nouns(vocabulary, form, lemma):
    assert vocabulary.nouns[form] == lemma


@pytest.mark.parametrize(
    ("form", "lemma"),
    [
        ("seated", "seat"), ("skiing", "ski"), ("tied", "tie"), ("tying", "tie"), ("taxiing", "taxi"),
        ("biking", "bike"), ("skateboarding", "skateboard"), ("lit", "light"), ("manned", "man"), ("coping", "cop"),
    ],
)  # fmt: skip
def test_verbs(vocabulary, form, lemma):
    assert vocabulary.verbs[form] == lemma


def test_words_that_wordnet_lacks_keep_their_plural(vocabulary):
    for plural in ("smartphones", "firetrucks", "macbooks"):  # the reference does not find these either
        assert plural not in vocabulary.nouns


def test_men_are_no_persons(vocabulary):
    # WordNet has "men" itself (a workforce), of the same length as "man": the lemmatiser leaves it as it is.
    assert "men" not in vocabulary.nouns


def test_words_stand_for_themselves_but_for_three(vocabulary):
    changed = {word for word in vocabulary.category_of if " " not in word and vocabulary.nouns[word] != word}
    assert changed == {"children", "oxen", "skis"}


def test_every_decision_is_about_a_form_that_matters(vocabulary):
    readings = tomllib.loads(Path(build_lexicon.HERE, "readings.toml").read_text())
    for form in readings["not_a_verb"]:
        assert form not in vocabulary.verbs
    for rule in vocabulary.lost:
        assert rule.forms and rule.after | rule.before
        assert rule.forms <= vocabulary.verbs.keys() | vocabulary.nouns.keys()
