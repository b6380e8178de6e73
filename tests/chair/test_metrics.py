"""The table of metrics and what must agree with it."""

from dataclasses import fields
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtune.chair import COLUMNS, METRICS, OBJECTIVES, Rates


def test_every_metric_is_a_field_of_rates_and_no_other_field_is_there() -> None:
    assert [field.name for field in fields(Rates)] == list(METRICS)


def test_the_front_has_one_metric_that_falls_and_one_that_rises() -> None:
    assert [METRICS[name].better for name in OBJECTIVES] == ["lower", "higher"]


@pytest.mark.parametrize("name", METRICS)
def test_nothing_counted_gives_0(name: str) -> None:
    assert Rates.of([0] * len(COLUMNS))[name] == 0


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].share_of])
def test_a_share_of_captions_is_that_of_its_column(name: str) -> None:
    column = METRICS[name].share_of or ""
    totals = {"captions": 8, column: 2}
    assert Rates.of([totals.get(each, 0) for each in COLUMNS])[name] == 25


@given(whole=st.integers(1, 400), part=st.integers(0, 400), times=st.integers(1, 9))
def test_equal_f1_is_equal_to_the_last_bit(whole: int, part: int, times: int) -> None:
    """2 correct / (mentioned + present) from other counts: "keeps the baseline's F1" hangs on it."""

    def f1(correct: int, mentioned: int, present: int) -> float:
        totals = {"correct": correct, "mentioned": mentioned, "present": present}
        return Rates.of([totals.get(each, 0) for each in COLUMNS]).f1

    part = min(part, whole)
    once, often, unequal = (
        f1(part, whole, whole),
        f1(part * times, whole * times, whole * times),
        f1(part, 2 * whole - part, part),
    )
    assert once == often == unequal == 100 * float(Fraction(part, whole))


def test_f1_is_not_told_apart_by_the_way_it_is_computed() -> None:
    rates = [
        Rates.of([{"correct": c, "mentioned": m, "present": 1900}.get(each, 0) for each in COLUMNS])
        for c, m in [(1200, 1700), (1201, 1703), (1204, 1712), (1205, 1715)]
    ]
    assert len({each.f1 for each in rates}) == 1
