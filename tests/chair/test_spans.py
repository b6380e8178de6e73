import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtune.chair.reader import CaptionReader
from kvtune.chair.spans import MentionFinder


@pytest.fixture(scope="module")
def finder():
    return MentionFinder()


def marked(finder, caption):
    return [(caption[start:end], category) for start, end, category in finder(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A hot dog beside a dog.", [("hot dog", "hot dog"), ("dog", "dog")]),
        ("People (two women) SKIING!", [("People", "person"), ("women", "person"), ("SKIING", "skis")]),
        ("A toilet seat, then a chair.", [("toilet seat", "toilet"), ("chair", "chair")]),
        ("two\nTVs, one oven-like", [("TVs", "tv")]),
        ('A "cat" and (dogs,cows) in İzmir: dog', [("cat", "cat"), ("dogs", "dog"), ("cows", "cow"), ("dog", "dog")]),
        ("", []),
    ],
)
def test_words_are_marked_where_they_stand(finder, caption, expected):
    assert marked(finder, caption) == expected


articles = ["a", "the", "1.", "...", "İ", "🐕", "café"]
objects = ["dogs", "dog", "hot", "Cat", "people,", "tie", "tied", "seat", "toilet.", "train", "track", "bear", "teddy"]
words = st.sampled_from([*articles, *objects, "sitting", '"wine', 'glass"', "TV's"])


@given(st.lists(words, max_size=30).map(" ".join) | st.text(max_size=60))
def test_they_are_the_mentions_that_the_reader_counts_in_order_and_apart(caption):
    finder = MentionFinder()
    spans = finder(caption)
    assert [category for _, _, category in spans] == CaptionReader().read(caption).mentions
    assert all(0 <= start <= end <= len(caption) for start, end, _ in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_every_mention_of_real_captions_is_located(finder, shared_data):
    lines = (shared_data / "chair" / "llava15_greedy_captions.jsonl").read_text().splitlines()
    captions = [json.loads(line)["caption"] for line in lines]
    spans = [(caption, span) for caption in captions for span in finder(caption)]
    assert len(spans) > 3000
    assert all(caption[start:end].strip() for caption, (start, end, _) in spans)
