"""Scores: against loops, and what holds for any captions."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_chair import naive_rates

import kvtune.chair.scorer
from kvtune.chair import COLUMNS, METRICS, SCORER, CaptionReader, ChairScorer, rates
from kvtune.chair.vocabulary import load_vocabulary
from kvtune.errors import RequestError

CATEGORIES = load_vocabulary().categories
RATES = tuple(METRICS)

some_objects = st.lists(st.sampled_from(["dog", "cat", "person", "dining table", "hot dog", "tv"]), max_size=6)
texts = some_objects.map(lambda names: "In it: " + ", a ".join(names) + ".")
problems = st.tuples(
    st.fixed_dictionaries({image: some_objects.map(set) for image in range(4)}),
    st.lists(st.fixed_dictionaries({"image_id": st.integers(0, 3), "caption": texts}), max_size=8),
)


def test_a_score_by_hand():
    scorer = ChairScorer({1: ["dog", "person"], 2: ["cat"], 3: ["tv"]})
    score = scorer.score(
        [
            {"image_id": 1, "caption": "A dog, a dog and a bicycle."},  # 3 mentions, 1 hallucinated
            {"image_id": 2, "caption": "A cat."},
        ]
    )
    assert score.to_dict() == {
        "chair_s": 50.0,
        "chair_i": 25.0,
        "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3),  # image 3 has no caption
        "f1": pytest.approx(200 / 3),
        "captions": 2,
        "mean_words": 6.0,
        "scorer": SCORER,
    }


def test_details_by_hand():
    scorer = ChairScorer({1: ["person", "dog", "dining table"]})
    found = scorer.details([{"image_id": 1, "caption": "A dog, a cat, a dog and a cat by a table."}])
    assert found == [
        {
            "image_id": 1,
            "mentioned": ["dog", "cat", "dog", "cat", "dining table"],
            "hallucinated": ["cat", "cat"],
            "correct": ["dog", "dining table"],
            "missed": ["person"],
            "words": 15,
            "denied": [],
        }
    ]


def test_denied_mentions_are_marked_and_count():
    scorer = ChairScorer({1: ["dog"]})
    (line,) = scorer.details([{"image_id": 1, "caption": "There is no couch, but a dog and a cat."}])
    assert line["mentioned"] == ["couch", "dog", "cat"] and line["hallucinated"] == ["couch", "cat"]
    assert line["denied"] == ["couch"]


@given(problems)
def test_rates_equal_naive_ones(problem):
    truth, captions = problem
    read = CaptionReader().read
    readings = [(each["image_id"], *reversed(read(each["caption"]))) for each in captions]
    expected = naive_rates(readings, truth)
    score = ChairScorer(truth).score(captions)
    assert {name: getattr(score, name) for name in RATES} == pytest.approx(expected)
    assert all(0 <= score[name] <= 100 for name in RATES if METRICS[name].unit == "%")


@given(problems, st.randoms())
def test_order_does_not_matter(problem, generator):
    truth, captions = problem
    shuffled = list(captions)
    generator.shuffle(shuffled)
    assert ChairScorer(truth).score(captions) == ChairScorer(truth).score(shuffled)


@given(problems, st.integers(0, 8))
def test_counts_of_parts_add_up(problem, cut):
    truth, captions = problem
    scorer = ChairScorer(truth)
    parts, whole = [scorer.counts(captions[:cut]), scorer.counts(captions[cut:])], scorer.counts(captions)
    assert np.array_equal(np.concatenate([part.table for part in parts]), whole.table)
    for counts, of in ((parts[0], captions[:cut]), (parts[1], captions[cut:]), (whole, captions)):
        assert counts.image_ids.tolist() == [caption["image_id"] for caption in of] and len(counts) == len(of)


@given(problems)
def test_details_agree_with_counts(problem):
    truth, captions = problem
    scorer = ChairScorer(truth)
    counts = scorer.counts(captions)
    for row, line in zip(counts.table.tolist(), scorer.details(captions), strict=True):
        assert dict(zip(COLUMNS, row, strict=True)) == {
            "captions": 1,
            "hallucinated_captions": bool(line["hallucinated"]),
            "mentions": len(line["mentioned"]),
            "hallucinated_mentions": len(line["hallucinated"]),
            "mentioned": len(set(line["mentioned"])),
            "correct": len(line["correct"]),
            "present": len(line["correct"]) + len(line["missed"]),
            "words": line["words"],
        }
        assert set(line["mentioned"]) == set(line["hallucinated"]) | set(line["correct"])


def test_rates_of_many_resamples_at_once():
    truth = {1: ["dog"], 2: ["cat", "person"], 3: []}
    captions = [
        {"image_id": 1, "caption": "A dog and a cat."},
        {"image_id": 2, "caption": "A man."},
        {"image_id": 3, "caption": "Nothing."},
    ]
    scorer = ChairScorer(truth)
    counts = scorer.counts(captions)
    draws = np.array([[1, 1, 1], [2, 0, 0], [0, 0, 3], [0, 0, 0]])
    found = rates(draws @ counts.table)
    for place, weights in enumerate(draws):
        drawn = [caption for caption, weight in zip(captions, weights, strict=True) for _ in range(weight)]
        score = scorer.score(drawn)
        assert {name: values[place] for name, values in found.items()} == {name: getattr(score, name) for name in RATES}
    assert counts.column("words").tolist() == [6, 3, 2]


@pytest.mark.parametrize("captions", [[], [{"image_id": 1, "caption": ""}], [{"image_id": 1, "caption": "a thing"}]])
def test_empty_denominators_give_zero(captions):
    score = ChairScorer({1: []}).score(captions)
    assert {score[name] for name in RATES if METRICS[name].unit == "%"} == {0.0}
    assert score.captions == len(captions)


def test_nothing_mentioned_where_there_is_something():
    score = ChairScorer({1: ["dog"]}).score([{"image_id": 1, "caption": "a thing"}])
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)


def test_two_captions_of_one_image_count_as_two():
    score = ChairScorer({1: ["dog", "cat"]}).score([{"image_id": 1, "caption": "a dog"}] * 2)
    assert (score.captions, score.recall) == (2, 50)


def test_ids_may_be_digits_or_file_names():
    scorer = ChairScorer({"42": ["dog"]})
    for image_id in (42, "42", "000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"):
        assert scorer.score([{"image_id": image_id, "caption": "a dog"}]).recall == 100


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([{"image_id": 2, "caption": "a dog"}], "image 2 has a caption but no ground truth"),
        ([{"caption": "a dog"}], 'caption 1 has no "image_id"'),
        ([{"image_id": 1, "caption": "a"}, {"image_id": 1}], 'caption 2 has no "caption"'),
        ([{"image_id": 1, "caption": None}], "text is expected, not nothing"),
        ([{"image_id": "x.jpg", "caption": "a"}], "'x.jpg' is no image id"),
        ([{"image_id": True, "caption": "a"}], "True is no image id"),
        (["a dog"], "caption 1 is no object"),
    ],
)
def test_captions_that_cannot_be_scored(captions, message):
    scorer = ChairScorer({1: ["dog"]})
    for method in (scorer.score, scorer.details, scorer.counts):
        with pytest.raises(RequestError, match=message):
            method(captions)


def test_ground_truth_that_is_none():
    with pytest.raises(RequestError, match="'tvs' is no COCO category; did you mean 'tv'"):
        ChairScorer({1: ["tvs"]})


def test_the_version_is_that_of_the_words():
    assert f"kvtune-chair/1+{load_vocabulary().digest}" == SCORER


def test_examples():
    assert doctest.testmod(kvtune.chair.scorer).failed == 0


def test_no_torch_is_imported():
    code = "import sys, kvtune.chair; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
