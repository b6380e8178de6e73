"""McNemar's test, Holm's adjustment, and the hypervolume of many resamples."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.statistics.hypervolume import hypervolume, hypervolume_estimate, hypervolumes
from kvtune.statistics.paired import holm, mcnemar


def all_coin_falls(only_one: int, only_other: int) -> Fraction:
    """The exact test by trying every way the differing images could have fallen."""
    coins = only_one + only_other
    falls = [sum(fall) for fall in itertools.product((0, 1), repeat=coins)]
    as_far = sum(abs(2 * heads - coins) >= abs(only_one - only_other) for heads in falls)
    return Fraction(as_far, len(falls))


@given(only_one=st.integers(0, 6), only_other=st.integers(0, 6), both=st.integers(0, 3), neither=st.integers(0, 3))
@settings(deadline=None)
def test_mcnemar_counts_coin_falls(only_one: int, only_other: int, both: int, neither: int) -> None:
    one = [1] * only_one + [0] * only_other + [1] * both + [0] * neither
    other = [0] * only_one + [1] * only_other + [1] * both + [0] * neither
    assert mcnemar(one, other) == pytest.approx(float(all_coin_falls(only_one, only_other)))
    assert mcnemar(other, one) == mcnemar(one, other)


def test_mcnemar_as_published_and_for_many_images() -> None:
    # Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13, table 3: 1 and 7 differ.
    assert mcnemar([1] + [0] * 7, [0] + [1] * 7) == pytest.approx(0.0703, abs=1e-4)
    assert 0 < mcnemar([1] * 900, [0] * 900) < 1e-260
    assert mcnemar([], []) == 1
    with pytest.raises(ValueError, match="not paired"):
        mcnemar([1, 0], [1])


def naive_holm(p_values: list[float], level: float) -> set[int]:
    """The step-down procedure: reject from the smallest on, until one is above its share of the level."""
    rejected: set[int] = set()
    for index in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        if p_values[index] > level / (len(p_values) - len(rejected)):
            break
        rejected.add(index)
    return rejected


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), max_size=12), st.integers(1, 200))
def test_holm_rejects_what_the_steps_reject(p_values: list[float], level: int) -> None:
    adjusted = holm(p_values)
    exact = level / 1000 + 1e-7  # between any two values that p-values here and their multiples take
    assert {index for index, value in enumerate(adjusted) if value <= exact} == naive_holm(p_values, exact)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.2]) == [0.2]


point = st.tuples(st.integers(0, 100).map(float), st.integers(0, 100).map(float))


@given(st.lists(st.lists(point, min_size=4, max_size=4), min_size=1, max_size=5), point)
def test_hypervolumes_are_those_of_each_row(rows: list[list[tuple[float, float]]], corner: tuple[float, float]) -> None:
    reference = (corner[0] + 1, corner[1] - 1)
    chair_s, f1 = np.array(rows)[:, :, 0], np.array(rows)[:, :, 1]
    expected = [hypervolume(row, reference) for row in rows]
    assert hypervolumes(chair_s, f1, reference) == pytest.approx(expected)


def test_no_points_no_hypervolume() -> None:
    assert list(hypervolumes(np.zeros((3, 0)), np.zeros((3, 0)), (40.0, 60.0))) == [0, 0, 0]


def test_the_luck_in_a_front_is_measured_and_taken_off() -> None:
    """Equal settings, noisy scores: the front's hypervolume is too high, the corrected one nearer the truth."""
    draw = np.random.default_rng(0)
    reference, truth = (50.0, 60.0), (40.0, 75.0)
    real = hypervolume([truth], reference)
    raw, corrected = [], []
    for _ in range(60):
        scores = draw.normal(truth, (2.0, 1.0), size=(20, 2))
        replicates = draw.normal(scores, (2.0, 1.0), size=(400, 20, 2))
        observed = hypervolume([tuple(score) for score in scores], reference)
        found = hypervolume_estimate(observed, replicates[:, :, 0], replicates[:, :, 1], reference)
        assert found.bias > 0 and found.corrected == pytest.approx(observed - found.bias)
        assert found.interval[0] < found.corrected < found.interval[1]
        raw.append(observed)
        corrected.append(found.corrected)
    assert np.mean(raw) > np.mean(corrected) > real
    assert np.mean(corrected) - real < 0.75 * (np.mean(raw) - real)


def test_a_single_setting_has_hardly_any_luck_in_it() -> None:
    draw = random.Random(0)
    chair_s = np.array([[draw.gauss(40, 2)] for _ in range(4000)])
    f1 = np.array([[draw.gauss(75, 1)] for _ in range(4000)])
    found = hypervolume_estimate(hypervolume([(40, 75)], (50, 60)), chair_s, f1, (50, 60))
    assert abs(found.bias) < 0.2 and found.interval[0] < found.observed < found.interval[1]


def test_the_corrected_interval_is_the_resamples_moved_down_by_twice_the_bias() -> None:
    draw = np.random.default_rng(3)
    chair_s, f1 = draw.normal((40, 44), 2, size=(1000, 2)), draw.normal((75, 78), 1, size=(1000, 2))
    each = sorted(hypervolume(list(zip(*row, strict=True)), (50, 60)) for row in zip(chair_s, f1, strict=True))
    found = hypervolume_estimate(9.0, chair_s, f1, (50, 60))
    bias = sum(each) / 1000 - 9.0
    assert found.bias == pytest.approx(bias)
    # 2.5 % of a thousand lie below the 25th and above the 975th.
    assert each[24] - 2 * bias <= found.interval[0] <= each[25] - 2 * bias
    assert each[974] - 2 * bias <= found.interval[1] <= each[975] - 2 * bias
    assert hypervolume_estimate(0.0, np.zeros((3, 1)), np.full((3, 1), 100), (50, 60)).interval == (0, 0)
    below = hypervolume_estimate(100.0, np.full((3, 1), 50), np.full((3, 1), 60), (50, 60))
    assert (below.corrected, below.interval) == (100, (100, 100))


def test_a_front_that_reaches_nothing_may_still_reach_something() -> None:
    draw = np.random.default_rng(2)
    chair_s, f1 = draw.normal(51, 3, size=(2000, 1)), draw.normal(75, 1, size=(2000, 1))
    found = hypervolume_estimate(0.0, chair_s, f1, (50, 60))
    assert found.corrected == found.interval[0] == 0 < found.interval[1]
