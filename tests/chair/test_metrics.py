"""The table of metrics and what must agree with it."""

from dataclasses import fields

import pytest

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
