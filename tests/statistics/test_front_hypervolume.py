"""Front and hypervolume against the definition, brute force and Optuna's own."""

import itertools

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from kvtune.statistics.front import dominates, front, reference_point
from kvtune.statistics.hypervolume import hypervolume

coarse = st.lists(st.tuples(st.integers(0, 12).map(float), st.integers(0, 12).map(float)), max_size=25)
fine = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=25)


@given(points=coarse | fine)
def test_front_is_what_nothing_dominates(points: list[tuple[float, float]]) -> None:
    found = front(points)
    expected = {
        index
        for index, (chair_s, f1) in enumerate(points)
        if not any(
            (other[0] <= chair_s and other[1] >= f1) and (other[0] < chair_s or other[1] > f1) for other in points
        )
    }
    assert set(found) == expected
    assert len(found) == len(expected)


@given(points=coarse | fine)
def test_front_rises_in_both_objectives(points: list[tuple[float, float]]) -> None:
    members = [points[index] for index in front(points)]
    assert members == sorted(members)
    assert [f1 for _, f1 in members] == sorted(f1 for _, f1 in members)


@given(points=coarse | fine)
def test_front_is_optunas(points: list[tuple[float, float]]) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials([optuna.create_trial(values=list(point)) for point in points])
    assert sorted(front(points)) == sorted(trial.number for trial in study.best_trials)


@given(one=st.tuples(st.integers(0, 3), st.integers(0, 3)), other=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_domination_is_strict(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert dominates(one, other) == (one[0] <= other[0] and one[1] >= other[1] and one != other)
    assert not (dominates(one, other) and dominates(other, one))


def test_reference_point_lies_behind_the_baseline() -> None:
    assert reference_point((48.5, 61.0)) == (53.5, 51.0)


@given(points=coarse, reference=st.tuples(st.integers(1, 14), st.integers(0, 11)))
def test_hypervolume_counts_the_cells_that_are_dominated(
    points: list[tuple[float, float]], reference: tuple[int, int]
) -> None:
    chair_limit, f1_limit = reference
    cells = itertools.product(range(chair_limit), range(f1_limit, 100))
    # A cell (x, x + 1) x (y, y + 1) is dominated by a point at most x and at least y + 1.
    dominated = sum(any(chair_s <= x and f1 >= y + 1 for chair_s, f1 in points) for x, y in cells)
    expected = 100 * dominated / (chair_limit * (100 - f1_limit))
    assert hypervolume(points, (float(chair_limit), float(f1_limit))) == pytest.approx(expected)


@given(points=fine, reference=st.tuples(st.floats(5, 105), st.floats(-10, 90)))
def test_hypervolume_is_optunas(points: list[tuple[float, float]], reference: tuple[float, float]) -> None:
    losses = np.array([(chair_s, -f1) for chair_s, f1 in points]).reshape(-1, 2)
    inside = losses[(losses[:, 0] < reference[0]) & (losses[:, 1] < -reference[1])]
    area = compute_hypervolume(inside, np.array([reference[0], -reference[1]])) if len(inside) else 0.0
    box = reference[0] * (100 - reference[1])
    assert hypervolume(points, reference) == pytest.approx(100 * area / box, abs=1e-9)


def test_hypervolume_of_the_extremes() -> None:
    assert hypervolume([], (50.0, 50.0)) == 0
    assert hypervolume([(0.0, 100.0)], (50.0, 50.0)) == 100
    assert hypervolume([(50.0, 80.0), (20.0, 50.0)], (50.0, 50.0)) == 0
    assert hypervolume([(25.0, 75.0)], (50.0, 50.0)) == 25


@given(points=fine.filter(bool), worse=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_a_dominated_point_adds_nothing(points: list[tuple[float, float]], worse: tuple[float, float]) -> None:
    reference = (60.0, 40.0)
    before = hypervolume(points, reference)
    after = hypervolume([*points, worse], reference)
    if any(dominates(point, worse) or point == worse for point in points):
        assert after == pytest.approx(before)
    else:
        assert after >= before - 1e-9
