"""Settings that a person wants tried next."""

from dataclasses import replace

import pytest
from fake_search import LAYERS, PUBLISHED

from kvtune.errors import RequestError
from kvtune.search.enqueue import enqueue, parse_point
from kvtune.search.rounds import Plan
from kvtune.spaces import default_space
from kvtune.study.manifest import TrialPoint
from kvtune.study.trials import Trial

SPACE = default_space("kvsmooth", LAYERS).fitted(LAYERS)
TEXT = "lambda_ref=0.35,queue_length=9,clip_width=0.2,start_layer=1,end_layer=6"
POINT = {"lambda_ref": 0.35, "queue_length": 9, "clip_width": 0.2, "start_layer": 1, "end_layer": 6}


def trials(count: int, enqueued: dict[int, dict[str, int | float]], sampler: str, at_once: int = 4) -> list[Trial]:
    """So many trials in rounds of 4, asked ``at_once`` of a round, each better than the one before."""
    how = Plan(SPACE, sampler, 0, 4, [PUBLISHED], enqueued=enqueued)  # type: ignore[arg-type]
    found: list[Trial] = []
    while len(found) < count:
        start = len(found)
        stop = min(count, (start // 4 + 1) * 4, start + at_once)
        for trial in how.trials(found, start, stop):
            metrics = {"chair_s": 50.0 - trial.number, "f1": 60.0}  # type: ignore[operator]
            found.append(replace(trial, state="complete", metrics=metrics))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
@pytest.mark.parametrize("number", [1, 6])
def test_the_trial_of_that_number_is_that_setting(sampler: str, number: int) -> None:
    found = trials(10, {number: POINT}, sampler)
    assert found[number].params == SPACE.full(POINT)
    assert [trial.params for trial in found].count(SPACE.full(POINT)) == 1
    assert found[:number] == trials(10, {}, sampler)[:number]
    assert found == trials(10, {number: POINT}, sampler, at_once=1), "however often it was interrupted"


def test_a_setting_is_read_and_gets_the_next_free_number() -> None:
    assert parse_point(TEXT, SPACE) == POINT
    before = trials(3, {}, "random")
    (first,) = enqueue([TEXT], SPACE, [], before, given=1)
    assert first == TrialPoint(trial=3, point=POINT)
    other = TEXT.replace("0.35", "0.4")
    assert [each.trial for each in enqueue([other], SPACE, [first], before, given=1)] == [3, 4]
    assert enqueue([TEXT], SPACE, [], [], given=2)[0].trial == 2, "after what the study begins with"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no parameter that is searched; write NAME=VALUE,... of lambda_ref, queue_length"),
        (TEXT + ",end_layer=5", "'end_layer' is there twice"),
        (TEXT.replace(",end_layer=6", ""), "end_layer is missing"),
        (TEXT.replace("0.35", "high"), "lambda_ref must be a number, not 'high'"),
        (TEXT.replace("0.35", "nan"), "lambda_ref must be from 0 to 1"),
        (TEXT.replace("=9", "=9.5"), "queue_length must be a whole number, not '9.5'"),
        (TEXT.replace("end_layer=6", "end_layer=1"), "end_layer must be from 4 to 8"),
    ],
)
def test_what_is_no_setting_of_the_space_is_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_point(text, SPACE)
    assert said in str(error.value)


def test_a_setting_that_was_tried_is_refused() -> None:
    before = trials(5, {2: POINT}, "random")
    with pytest.raises(RequestError, match="trial 2 has that very setting"):
        enqueue([TEXT], SPACE, [], before, given=1)
    with pytest.raises(RequestError, match="trial 7 has that very setting"):
        enqueue([TEXT], SPACE, [TrialPoint(trial=7, point=POINT)], before[:2], given=1)
