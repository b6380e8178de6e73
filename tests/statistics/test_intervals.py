"""Wilson intervals and the bootstrap over images, against slow references written apart from them."""

import itertools
import random
import statistics as plain

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvtune.chair import COLUMNS, METRICS, CaptionCounts
from kvtune.statistics.bootstrap import Bootstrap, resampling_weights, score_intervals
from kvtune.statistics.paired import mcnemar, share_difference_interval, wilson_interval
from kvtune.statistics.randomization import randomization_p_values


def weights_of(images: int, resamples: int, seed: int = 0) -> NDArray[np.float64]:
    return np.concatenate(list(resampling_weights(images, resamples, seed)))


def rows_of(images: int, seed: int, hallucinating: float = 0.4) -> list[dict[str, int]]:
    """Counts that captions could have."""
    draw = random.Random(seed)
    rows = []
    for _ in range(images):
        correct, wrong = draw.randint(0, 4), draw.randint(1, 3) if draw.random() < hallucinating else 0
        rows.append(
            {
                "captions": 1,
                "hallucinated_captions": int(wrong > 0),
                "mentions": 2 * correct + wrong,
                "hallucinated_mentions": wrong,
                "mentioned": correct + wrong,
                "correct": correct,
                "present": correct + draw.randint(0, 3),
                "words": draw.randint(5, 120),
            }
        )
    return rows


def table(rows: list[dict[str, int]]) -> list[list[int]]:
    return [[row[name] for name in COLUMNS] for row in rows]


def naive_rates(rows: list[dict[str, int]]) -> dict[str, float]:
    def ratio(part: str, whole: str) -> float:
        total = sum(row[whole] for row in rows)
        return 100 * sum(row[part] for row in rows) / total if total else 0.0

    precision, recall = ratio("correct", "mentioned"), ratio("correct", "present")
    return {
        "chair_s": 100 * sum(row["hallucinated_captions"] for row in rows) / len(rows),
        "chair_i": ratio("hallucinated_mentions", "mentions"),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "mean_words": sum(row["words"] for row in rows) / len(rows),
    }


@given(total=st.integers(1, 3000), data=st.data())
def test_wilson_bounds_are_where_the_score_test_is_at_its_limit(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    low, high = (bound / 100 for bound in wilson_interval(hits, total))
    z = plain.NormalDist().inv_cdf(0.975)
    share = hits / total
    assert 0 <= low <= share <= high <= 1 and high > low
    for bound in (low, high):
        if 0 < bound < 1:
            assert abs(share - bound) == pytest.approx(z * (bound * (1 - bound) / total) ** 0.5, rel=1e-6)


def test_wilson_as_published() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I.
    for (hits, total), expected in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson_interval(hits, total) == pytest.approx([100 * bound for bound in expected], abs=0.006)
    assert wilson_interval(20, 20)[1] == 100 and wilson_interval(0, 20)[0] == 0
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(3, 2)


def test_weights_are_multinomial_draws() -> None:
    weights = weights_of(30, 4000)
    assert np.all(weights.sum(axis=1) == 30)
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(29 / 30, rel=0.03)
    assert np.array_equal(weights, weights_of(30, 4000))
    assert not np.array_equal(weights, weights_of(30, 4000, seed=1))


@given(images=st.integers(1, 12), seed=st.integers(0, 99), hallucinating=st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=20, deadline=None)
def test_replicates_equal_a_loop_over_resamples(images: int, seed: int, hallucinating: float) -> None:
    trials = [rows_of(images, 10 * seed + trial, hallucinating) for trial in range(3)]
    found = Bootstrap([table(rows) for rows in trials], resamples=25)
    weights = weights_of(images, 25)
    for trial, rows in enumerate(trials):
        assert {name: found.estimates[name][trial] for name in METRICS} == pytest.approx(naive_rates(rows))
        for resample in range(25):
            drawn = [row for row, times in zip(rows, weights[resample], strict=True) for _ in range(int(times))]
            expected = naive_rates(drawn)
            assert {name: found.replicates[name][resample, trial] for name in METRICS} == pytest.approx(expected)


def test_the_same_data_gives_the_same_intervals_whatever_stands_beside_it() -> None:
    trials = [table(rows_of(60, trial)) for trial in range(4)]
    together, alone = Bootstrap(trials), Bootstrap(trials[2:3])
    for name, interval in alone.intervals(0).items():
        assert together.intervals(2)[name] == pytest.approx(interval)
    assert Bootstrap(trials).intervals(1) == together.intervals(1)


def test_intervals_hold_the_estimate_and_shrink_with_images() -> None:
    widths = []
    for images in (50, 800):
        found = Bootstrap([table(rows_of(images, 5))])
        for name, (low, high) in found.intervals(0).items():
            assert low < found.estimates[name][0] < high
        widths.append(found.intervals(0)["f1"][1] - found.intervals(0)["f1"][0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_at_0_and_100_percent_an_interval_still_has_a_width() -> None:
    clean = [row | {"present": row["correct"]} for row in rows_of(40, 1, hallucinating=0.0)]
    intervals = Bootstrap([table(clean)]).intervals(0)
    assert intervals["chair_s"] == intervals["chair_i"] == wilson_interval(0, 40)
    assert intervals["precision"] == intervals["recall"] == intervals["f1"] == wilson_interval(40, 40)
    silent = [dict.fromkeys(COLUMNS, 0) | {"captions": 1, "present": 2} for _ in range(7)]
    assert Bootstrap([table(silent)]).intervals(0)["f1"] == wilson_interval(0, 7)


def test_intervals_cover_the_truth() -> None:
    pool = rows_of(5000, 3)
    truth = naive_rates(pool)
    pool_table = np.array(table(pool))
    inside = dict.fromkeys(METRICS, 0)
    draw = np.random.default_rng(1)
    studies = 300
    for _ in range(studies):
        drawn = pool_table[draw.integers(0, len(pool), 150)]
        for name, (low, high) in Bootstrap([drawn], resamples=400).intervals(0).items():
            inside[name] += low <= truth[name] <= high
    # 95 % of 300 studies, give or take 3 standard errors.
    assert all(0.91 < count / studies < 0.985 for count in inside.values()), inside


def moves_most(one: list[dict[str, int]], other: list[dict[str, int]], name: str) -> int:
    """The image without which the difference changes most, the first of several."""

    def without(index: int) -> float:
        left = [rows[:index] + rows[index + 1 :] for rows in (one, other)]
        return naive_rates(left[0])[name] - naive_rates(left[1])[name]

    whole = naive_rates(one)[name] - naive_rates(other)[name]
    differ = [index for index in range(len(one)) if one[index] != other[index]]
    return max(differ, key=lambda index: round(abs(without(index) - whole), 9))


@pytest.mark.parametrize("hit", [0.0, 0.3, 0.9])
def test_paired_differences_equal_a_loop(hit: float) -> None:
    one, other = rows_of(40, 1), rows_of(40, 2, hit)
    found = Bootstrap([table(one), table(other)], resamples=200)
    weights = weights_of(40, 200)
    more = np.random.default_rng([0, 1]).binomial(42, 1 / 42, size=(2, 200, 1))
    # Of 40 images: the ends of Student's interval with 39 degrees of freedom, from a variance over 40.
    tail = plain.NormalDist().cdf(-2.0226909200 * (40 / 39) ** 0.5)
    for name in set(METRICS) - {"chair_s"}:
        most = moves_most(other, one, name)
        differences = []
        for resample in range(200):
            chosen = [index for index, times in enumerate(weights[resample]) for _ in range(int(times))]
            as_it_is, exchanged = (int(more[way, resample, 0]) for way in (0, 1))
            first = [other[i] for i in chosen] + [other[most]] * as_it_is + [one[most]] * exchanged
            second = [one[i] for i in chosen] + [one[most]] * as_it_is + [other[most]] * exchanged
            differences.append(naive_rates(first)[name] - naive_rates(second)[name])
        estimate, (low, high) = found.difference(name, 1, 0)
        assert estimate == pytest.approx(naive_rates(other)[name] - naive_rates(one)[name])
        assert (low, high) == pytest.approx(np.quantile(differences, [tail, 1 - tail]), abs=1e-6)


@pytest.mark.parametrize("name", ["chair_s", "f1", "precision"])
def test_a_few_images_that_differ_the_same_way_prove_no_difference(name: str) -> None:
    """Four of 200: any way they fall is as likely as 2 in 16, and other images may differ the other way."""
    rows = [row | {"hallucinated_captions": 0} for row in rows_of(200, 3)]
    worse = [
        row | ({"hallucinated_captions": 1, "mentioned": row["mentioned"] + 2} if index < 4 else {})
        for index, row in enumerate(rows)
    ]
    found = Bootstrap([table(worse), table(rows)])
    estimate, (low, high) = found.difference(name, 0, 1)
    assert low <= 0 <= high and low < estimate < high
    assert found.p_value(name, 0, 1) == pytest.approx(2 / 16, abs=0.01)


def test_no_image_differs() -> None:
    found = Bootstrap([table(rows_of(50, 3))] * 2)
    assert found.difference("chair_s", 0, 1)[1] == pytest.approx((-5.3303, 5.3303), abs=1e-3)  # 1.96 sqrt(2) / 52
    assert {found.p_value(name, 0, 1) for name in METRICS} == {1}


@example(only_one=6, only_other=15, both=0, neither=14)  # a bound near 0
@given(only_one=st.integers(0, 30), only_other=st.integers(0, 30), both=st.integers(0, 30), neither=st.integers(1, 30))
def test_the_difference_of_two_shares_is_as_published(only_one: int, only_other: int, both: int, neither: int) -> None:
    one = [1] * only_one + [0] * only_other + [1] * both + [0] * neither
    other = [0] * only_one + [1] * only_other + [1] * both + [0] * neither
    low, high = share_difference_interval(one, other)
    # Bonett and Price, equation 4: both counts plus 1, of n + 2.
    n, b, c = len(one), only_one, only_other
    middle, variance = (b - c) / (n + 2), ((b + c + 2) / (n + 2) - ((b - c) / (n + 2)) ** 2) / (n + 2)
    bounds = [100 * (middle + z * variance**0.5) for z in map(plain.NormalDist().inv_cdf, (0.025, 0.975))]
    assert (low, high) == pytest.approx([max(-100, bounds[0]), min(100, bounds[1])])
    assert low <= 100 * (b - c) / n <= high
    assert share_difference_interval(other, one) == pytest.approx((-high, -low))


@pytest.mark.parametrize("differ", [1, 3, 7])
def test_p_values_are_shares_of_all_exchanges(differ: int) -> None:
    one = rows_of(30, 1)
    other = [rows_of(30, 2, 0.8)[index] if index < differ else row for index, row in enumerate(one)]
    found = randomization_p_values(table(one), table(other), seed=0)
    for name in METRICS:
        observed = abs(naive_rates(one)[name] - naive_rates(other)[name])
        as_far = 0
        for coins in itertools.product((False, True), repeat=differ):
            pairs = [(one[i], other[i])[:: -1 if i < differ and coins[i] else 1] for i in range(30)]
            first, second = (naive_rates(list(rows)) for rows in zip(*pairs, strict=True))
            as_far += abs(first[name] - second[name]) >= observed - 1e-9
        assert found[name] == pytest.approx(as_far / 2**differ, abs=0.02)


def test_p_values_of_chair_s_are_those_of_mcnemar() -> None:
    one, other = rows_of(120, 1), rows_of(120, 2, 0.25)
    flags = [[row["hallucinated_captions"] for row in rows] for rows in (one, other)]
    found = randomization_p_values(table(one), table(other), seed=0)["chair_s"]
    assert found == pytest.approx(mcnemar(*flags), abs=0.01)


def test_a_clear_difference_stays_clear_beside_499_others() -> None:
    rows = rows_of(200, 4)
    worse = [row | {"mentioned": row["mentioned"] + 3} for row in rows]
    p_value = Bootstrap([table(worse), table(rows)]).p_value("f1", 0, 1)
    assert p_value == 1 / 10_000 and 500 * p_value <= 0.05


def test_pairing_removes_what_images_share() -> None:
    rows = rows_of(300, 4)
    cleaned = [index for index, row in enumerate(rows) if row["hallucinated_captions"]][:12]
    nearly = [row | ({"hallucinated_captions": 0} if index in cleaned else {}) for index, row in enumerate(rows)]
    found = Bootstrap([table(rows), table(nearly)])
    _, (low, high) = found.difference("chair_s", 1, 0)
    single = found.interval("chair_s", 0)
    assert high - low < 0.6 * (single[1] - single[0])
    assert not found.tied(0, 1) and high < 0


def test_a_setting_is_tied_with_itself_and_with_noise_not_with_a_better_one() -> None:
    rows = rows_of(200, 6)
    better = [
        row | {"hallucinated_captions": 0, "mentioned": row["correct"], "present": row["correct"]} for row in rows
    ]
    found = Bootstrap([table(rows), table(rows), table(rows_of(200, 7)), table(better)])
    assert found.tied(0, 1) and found.tied(0, 2) and found.tied(2, 0)
    assert not found.tied(0, 3)
    assert found.p_value("f1", 0, 1) == found.p_value("chair_s", 0, 1) == 1
    assert found.difference("f1", 0, 1) == (0, (0, 0))


@pytest.mark.parametrize("shape", [(2, 3), (1, 0, 8), (1, 3, 7)])
def test_counts_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="counts must be"):
        Bootstrap(np.zeros(shape))


def test_resamples_do_not_depend_on_how_many_are_drawn_at_a_time(monkeypatch):
    whole = weights_of(37, 50, seed=3)
    for most in (1, 37 * 7, 1000):
        monkeypatch.setattr("kvtune.statistics.bootstrap.MOST_DRAWS", most)
        assert np.array_equal(weights_of(37, 50, seed=3), whole)


def test_intervals_of_a_captions_file():
    table = np.zeros((40, len(COLUMNS)), dtype=np.int64)
    table[:, COLUMNS.index("captions")] = 1
    table[::4, COLUMNS.index("hallucinated_captions")] = 1
    table[:, COLUMNS.index("words")] = np.arange(40)
    one_each = score_intervals(CaptionCounts(np.arange(40), table))
    assert one_each == Bootstrap(table[None]).intervals(0)
    # The same captions thrice tell no more than once, though there are three times as many.
    thrice = score_intervals(CaptionCounts(np.tile(np.arange(40), 3), np.tile(table, (3, 1))))
    assert thrice["mean_words"] == pytest.approx(one_each["mean_words"])
    assert thrice["chair_s"] == pytest.approx(one_each["chair_s"], abs=3)
    # Rates of 0 have a width here, too.
    assert thrice["chair_i"] == thrice["f1"] == wilson_interval(0, 40)
    table[:, COLUMNS.index("hallucinated_captions")] = 0
    clean = score_intervals(CaptionCounts(np.tile(np.arange(40), 3), np.tile(table, (3, 1))))
    assert clean["chair_s"] == wilson_interval(0, 40)
    assert score_intervals(CaptionCounts(np.array([7]), table[:1])).keys() == {"chair_s"}
    assert score_intervals(CaptionCounts(np.array([7, 7]), table[:2])) == {}
