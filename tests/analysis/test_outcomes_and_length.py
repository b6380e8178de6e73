"""Counts that are kept, captions cut short, repetition, and the control by length."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_studies import cut_curve

from kvtune.analysis.length_control import at_words, cut_baseline, length_of
from kvtune.analysis.outcomes import Outcomes, distinct
from kvtune.analysis.summary import CutBaseline
from kvtune.chair import COLUMNS, ChairScorer, rates
from kvtune.study.scoring import Scoring

NOWHERE = Path("nowhere.npz")
TRUTH = {1: {"dog"}, 2: {"cat", "chair"}}


def line(image_id: int, caption: str, reason: str = "eos") -> dict[str, object]:
    return {"image_id": image_id, "caption": caption, "tokens": 5, "finish_reason": reason}


CAPTIONS = [
    line(1, "A dog sits on the grass. Beside it stands a bicycle. A car is parked."),
    line(2, "A cat on a chair! It looks at a bird.", "length"),
]


def test_counts_are_the_scorers_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts.npz"
    first = Outcomes(path, Scoring(TRUTH))
    found, cuts = first.of(CAPTIONS), first.of_cuts(CAPTIONS)
    first.save()
    assert np.array_equal(found.counts, ChairScorer(TRUTH).counts(CAPTIONS).table)
    assert found.at_limit.tolist() == [False, True]

    def never(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(Scoring, "counts", never)
    again = Outcomes(path, Scoring(TRUTH))
    kept = again.of(CAPTIONS)
    assert np.array_equal(kept.counts, found.counts) and np.array_equal(kept.distinct, found.distinct)
    assert kept.at_limit.tolist() == found.at_limit.tolist() and np.array_equal(again.of_cuts(CAPTIONS), cuts)
    for other in (Outcomes(path, Scoring(TRUTH | {1: {"car"}})), again):
        with pytest.raises(AssertionError, match="scored again"):
            other.of(CAPTIONS if other is not again else [line(1, "Another."), CAPTIONS[1]])


@pytest.mark.parametrize("content", [b"", b"PK nonsense", b"\x93NUMPY"])
def test_a_broken_or_unwritable_cache_is_only_slower(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "counts.npz"
    path.write_bytes(content)
    outcomes = Outcomes(path, Scoring(TRUTH))
    outcomes.of(CAPTIONS)
    outcomes.save()
    assert Outcomes(path, Scoring(TRUTH)).of(CAPTIONS).counts.shape == (2, len(COLUMNS))
    blocked = Outcomes(path / "below a file" / "counts.npz", Scoring(TRUTH))
    blocked.of(CAPTIONS)
    blocked.save()


def test_a_byte_that_changed_on_the_disk_makes_the_cache_only_slower(tmp_path: Path) -> None:
    path = tmp_path / "counts.npz"
    kept = Outcomes(path, Scoring(TRUTH))
    counts = kept.of(CAPTIONS).counts
    kept.save()
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert np.array_equal(Outcomes(path, Scoring(TRUTH)).of(CAPTIONS).counts, counts)


def test_cuts_by_hand() -> None:
    curve = cut_baseline(Outcomes(NOWHERE, Scoring(TRUTH)).of_cuts(CAPTIONS))
    assert [cut.sentences for cut in curve] == [1, 2, 3]
    assert [cut.chair_s for cut in curve] == [0, 100, 100]
    assert [round(cut.chair_i, 6) for cut in curve] == [0, 40, 50]  # bicycle and bird, then the car
    assert curve[0].f1 == 100 and [cut.recall for cut in curve] == [100, 100, 100]
    words = [(7 + 6) / 2, (7 + 6 + 6 + 6) / 2, (7 + 6 + 5 + 6 + 6) / 2]
    assert [cut.mean_words for cut in curve] == words


sentence = st.sampled_from(
    [
        "A dog runs.",
        "Is that a cat?",
        "There are 2. chairs",
        "a bicycle",
        "Mr. Bean sits on a bench!",
        "1. A car\n",
        "…",
    ]
)


@given(st.lists(st.lists(sentence, max_size=6).map(" ".join), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_the_last_cut_is_the_whole_caption(texts: list[str]) -> None:
    truth = {index: {"dog"} for index in range(len(texts))}
    captions = [line(index, text) for index, text in enumerate(texts)]
    counts = Outcomes(NOWHERE, Scoring(truth)).of_cuts(captions)
    whole = ChairScorer(truth).counts(captions).table
    assert np.array_equal(counts[-1], whole)
    for name in ("words", "mentions", "mentioned", "correct"):
        assert np.all(np.diff(counts[:, :, COLUMNS.index(name)], axis=0) >= 0)


def naive_distinct(text: str, n: int) -> float:
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    grams = [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


@given(st.text(alphabet="ab ,.C", max_size=40), st.integers(1, 4))
def test_distinct_n_is_that_of_a_loop(text: str, n: int) -> None:
    assert distinct(text, n) == pytest.approx(naive_distinct(text, n))


def test_repetition_shows() -> None:
    assert distinct("A dog and a cat sit on the mat.", 2) == 1
    assert distinct("a dog " * 50, 2) == pytest.approx(2 / 99)


def curve_of(*points: tuple[float, float, float]) -> list[CutBaseline]:
    return cut_curve(*((words, chair, f1) for words, chair, f1 in points))


CURVE = curve_of((20, 10, 50), (40, 30, 60), (90, 50, 70))


@given(st.floats(0, 150))
def test_the_curve_between_its_points(words: float) -> None:
    chair_s, f1 = at_words(CURVE, words)
    inside = min(max(words, 20), 90)
    left, right = (CURVE[0], CURVE[1]) if inside <= 40 else (CURVE[1], CURVE[2])
    share = (inside - left.mean_words) / (right.mean_words - left.mean_words)
    assert chair_s == pytest.approx(left.chair_s + share * (right.chair_s - left.chair_s))
    assert f1 == pytest.approx(left.f1 + share * (right.f1 - left.f1))


@pytest.mark.parametrize(
    ("chair_s", "f1", "words", "flag"),
    [
        (35, 69, 80, None),
        (20, 55, 30, "CHAIR_S 20.0 is not below the 20.0 of the baseline cut to as many words"),
        (19.9, 55.1, 30, None),
        (50, 75, 100, "is not below the 50.0"),
        (12, 40, 85, "the baseline cut to 1 sentence is as good or better in both (CHAIR_S 10.0, F1 50.0)"),
        (31, 59, 90, "the baseline cut to 2 sentences is as good or better"),
        (30, 60, 85, "the baseline cut to 2 sentences is as good or better"),
        (9, 45, 5, None),
    ],
)
def test_what_does_not_beat_the_cut_baseline_is_flagged(
    chair_s: float, f1: float, words: float, flag: str | None
) -> None:
    outcome = Outcomes(NOWHERE, Scoring(TRUTH)).of(CAPTIONS)
    found = length_of(outcome, cut_curve((words, chair_s, f1))[0], CURVE)
    assert (found.flag is None) if flag is None else (found.flag is not None and flag in found.flag)
    assert found.at_limit == 50 and found.distinct[0] < found.distinct[1] <= found.distinct[2] == 1
    assert (found.cut_chair_s, found.cut_f1) == at_words(CURVE, words)


def test_the_baseline_is_not_held_against_itself() -> None:
    found = length_of(Outcomes(NOWHERE, Scoring(TRUTH)).of(CAPTIONS))
    assert (found.cut_chair_s, found.cut_f1, found.flag) == (None, None, None)
    assert rates(np.zeros(len(COLUMNS)))["f1"] == 0
