"""Tokens: pinned to what NLTK answers, and equal to a tokeniser written apart."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_chair import naive_tokens

from kvtune.chair.sentences import split_sentences
from kvtune.chair.tokens import word_tokenize

PINNED = json.loads((Path(__file__).parent / "tokens.json").read_text(encoding="utf-8"))["cases"]

WORDS = [
    "dog",
    "the",
    "a",
    "b",
    "t-shirt",
    "dog's",
    "dogs'",
    "don't",
    "they're",
    "cannot",
    "gonna",
    "7.5",
    "1,000",
    "23",
]
OPENING = ["", "", "", "", "(", '"', "[", "“", "*", "**", "#"]
CLOSING = [
    "",
    "",
    "",
    "",
    ".",
    ",",
    "!",
    "?",
    ":",
    ";",
    "...",
    ".)",
    '."',
    ").",
    '".',
    ".**",
    "**.",
    "*",
    "”",
    "”.",
    ".”",
]
words = st.tuples(
    st.sampled_from(OPENING), st.sampled_from([*WORDS, "mr", "dr", "u.s", "cat--dog", "dog/cat", "cat—dog"]),
    st.sampled_from(CLOSING), st.sampled_from([" ", "\n", "\n\n", "  "]),
)  # fmt: skip
captions = st.lists(words, max_size=12).map(lambda parts: "".join(map("".join, parts)))


@pytest.mark.parametrize("case", PINNED, ids=lambda case: case["text"][:40])
def test_tokens_are_nltks(case):
    assert word_tokenize(case["text"]) == case["tokens"]


@given(captions)
def test_tokens_equal_those_of_a_naive_tokeniser(text):
    found = ['"' if token in ("``", "''") else token for token in word_tokenize(text)]
    assert found == naive_tokens(text)


@given(st.text(alphabet="ab1 .,!?:;'\"()-*\n`’”“", max_size=40))
def test_nothing_is_lost_but_white_space(text):
    def without_quotes(string):  # a double quote changes its form
        return "".join(character for character in string if not character.isspace() and character not in "\"'`")

    assert without_quotes("".join(word_tokenize(text))) == without_quotes(text)


@given(st.text(alphabet="ab1 .,!?:;'\"()-*\n`’”“", max_size=40))
def test_sentences_partition_the_text(text):
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a dog. a cat.", ["a dog.", "a cat."]),
        ("a dog.\n\na cat", ["a dog.", "a cat"]),
        ('"a dog." a cat', ['"a dog."', "a cat"]),
        ("(a dog.) a cat", ["(a dog.)", "a cat"]),
        ("mr. smith. a cat", ["mr. smith.", "a cat"]),
        ("1. a dog", ["1. a dog"]),
        ("1. 2 dogs", ["1.", "2 dogs"]),
        ("plan b. a dog", ["plan b. a dog"]),
        ("a dog... a cat", ["a dog... a cat"]),
        ("what? no! yes", ["what?", "no!", "yes"]),
        ("a dog.**bold**", ["a dog.", "**bold**"]),
        ("7.5 dogs.cats", ["7.5 dogs.cats"]),
        ("", []),
        (" \n", []),
    ],
)
def test_sentences_break_where_punkt_breaks_them(text, sentences):
    assert split_sentences(text) == sentences
