"""Rounds of trials: a pure function of what came before, the seed and the space."""

import math
from dataclasses import replace
from typing import Any

import pytest
from fake_search import LAYERS, PUBLISHED
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.errors import RequestError
from kvtune.search.rounds import Plan
from kvtune.search.samplers import POPULATION, grid_points, make_sampler, round_seed
from kvtune.spaces import Range, SearchSpace, default_space
from kvtune.study.search_defaults import SAMPLERS
from kvtune.study.trials import Trial

SPACE = default_space("kvsmooth", LAYERS).fitted(LAYERS)
FAST = ("tpe", "nsga2", "random", "grid")


def judged(trial: Trial) -> Trial:
    """A made-up result: smoothing lowers CHAIR_S and, beyond a point, F1."""
    p = trial.params
    strength = p["lambda_ref"] * (p["end_layer"] - p["start_layer"]) / LAYERS
    chair_s = 50 - 30 * strength + 2 * abs(math.log(p["queue_length"] / 15))
    f1 = 62 - 40 * max(0.0, strength - 0.4) - 4 * abs(p["clip_width"] - 0.15)
    return replace(trial, state="complete", metrics={"chair_s": chair_s, "f1": f1})


def plan(sampler: str, size: int = 4, seed: int = 0, published: bool = True, space: SearchSpace = SPACE) -> Plan:
    return Plan(space, sampler, seed, size, [PUBLISHED] if published else [])  # type: ignore[arg-type]


def searched(how: Plan, count: int, failing: tuple[int, ...] = ()) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < count:
        start = len(trials)
        asked = how.trials(trials, start, min(count, (start // how.size + 1) * how.size))
        if not asked:
            break
        trials += [
            replace(trial, state="failed", reason="x") if trial.number in failing else judged(trial) for trial in asked
        ]
    return trials


@pytest.mark.parametrize("sampler", FAST)
def test_same_seed_same_trials_other_seed_others(sampler: str) -> None:
    assert searched(plan(sampler), 20) == searched(plan(sampler), 20)
    others = searched(plan(sampler, seed=1), 20)
    assert [trial.params for trial in others[1:]] != [trial.params for trial in searched(plan(sampler), 20)[1:]]


@pytest.mark.parametrize("sampler", FAST)
def test_rounds_differ_from_each_other(sampler: str) -> None:
    settings_tried = [tuple(trial.params.values()) for trial in searched(plan(sampler), 24)]
    assert len(set(settings_tried)) == 24


@pytest.mark.parametrize("sampler", FAST)
def test_any_part_of_a_round_can_be_planned_again(sampler: str) -> None:
    how = plan(sampler, size=5)
    trials = searched(how, 20)
    for start in (5, 6, 9, 13, 19):
        for stop in range(start + 1, (start // 5 + 1) * 5 + 1):
            again = how.trials(trials[:start], start, stop)
            assert [(trial.number, trial.params) for trial in again] == [
                (trial.number, trial.params) for trial in trials[start:stop]
            ]


@pytest.mark.parametrize("sampler", FAST)
def test_a_round_looks_at_earlier_rounds_alone(sampler: str) -> None:
    how = plan(sampler)
    trials = searched(how, 12)
    spoilt = [*trials[:8], *(replace(trial, metrics={"chair_s": 0.0, "f1": 99.0}) for trial in trials[8:])]
    assert how.trials(spoilt, 11, 12) == how.trials(trials, 11, 12)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_learn_from_earlier_rounds(sampler: str) -> None:
    how = plan(sampler)
    trials = searched(how, 20)
    other = [
        replace(trial, metrics={"chair_s": -trial.metrics["chair_s"], "f1": 0.0}) for trial in trials if trial.metrics
    ]
    assert how.trials(other, 20, 24) != how.trials(trials, 20, 24)


def test_a_round_never_crosses_its_end() -> None:
    with pytest.raises(ValueError, match="not in one round"):
        plan("random").trials([], 2, 6)


@pytest.mark.parametrize("sampler", FAST)
def test_every_trial_is_a_setting_of_the_space(sampler: str) -> None:
    for trial in searched(plan(sampler), 40):
        assert SPACE.point(trial.params) is not None
        assert trial.params["lambda_ref"] == round(trial.params["lambda_ref"], 2)


@pytest.mark.parametrize("sampler", FAST)
def test_the_published_preset_is_trial_0_once(sampler: str) -> None:
    trials = searched(plan(sampler), 24)
    assert trials[0].params == PUBLISHED
    assert [trial.number for trial in trials if trial.published] == [0]
    assert sum(trial.params == PUBLISHED for trial in trials) == 1
    without = searched(plan(sampler, published=False), 8)
    assert not any(trial.published for trial in without)


def test_given_points_matter_in_their_own_rounds_alone() -> None:
    points = [point for trial in searched(plan("random", seed=1), 7) if (point := SPACE.point(trial.params))]
    how, without = replace(plan("random", published=False), start=points), plan("random", published=False)
    trials = searched(how, 8)
    assert [SPACE.point(trial.params) for trial in trials[:7]] == points
    assert how.trials(trials, 8, 12) == without.trials(trials, 8, 12)


@pytest.mark.parametrize("sampler", FAST)
def test_failed_trials_do_not_stop_a_search(sampler: str) -> None:
    trials = searched(plan(sampler), 24, failing=(0, 5, 6, 7, 13))
    assert len(trials) == 24


def test_nsga2_breeds_from_the_second_generation_on_the_published_preset_included() -> None:
    trials = searched(plan("nsga2"), 40)
    generations = [next(iter(trial.sampler.values())) for trial in trials]
    assert generations == [number // POPULATION for number in range(40)]
    # Children inherit: most of their values are values of the generations before, by far not all random.
    values = [{(name, trial.params[name]) for name in SPACE.parameters} for trial in trials]
    parents = set().union(*values[:POPULATION])
    inherited = [len(values[number] & parents) / len(SPACE.parameters) for number in range(POPULATION, 2 * POPULATION)]
    assert sum(inherited) / len(inherited) > 0.5
    best = replace(trials[0], metrics={"chair_s": 0.0, "f1": 99.0})
    children = plan("nsga2").trials([best, *trials[1:8]], 8, 12)
    from_published = sum(child.params[name] == PUBLISHED[name] for child in children for name in SPACE.parameters)
    assert from_published >= 5


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_searching_beats_guessing(sampler: str) -> None:
    def total(name: str) -> float:
        seeds = range(2)
        return sum(
            sum(sorted(trial.metrics["chair_s"] for trial in searched(plan(name, 8, seed), 48) if trial.metrics)[:8])
            for seed in seeds
        )

    assert total(sampler) < total("random")


def test_gp_plans_a_round_twice_alike() -> None:
    how = plan("gp")
    trials = searched(plan("random"), 12)
    assert how.trials(trials, 12, 13) == how.trials(trials, 12, 13) != plan("random").trials(trials, 12, 13)


def test_round_seeds_are_unrelated() -> None:
    seeds = {round_seed(seed, index) for seed in range(30) for index in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_unknown_sampler() -> None:
    with pytest.raises(RequestError, match=", ".join(SAMPLERS)):
        make_sampler("cmaes", 0)  # type: ignore[arg-type]


def test_tpe_keeps_the_trials_of_a_round_apart() -> None:
    how = plan("tpe", size=8)
    trials = searched(how, 48)
    for start in range(16, 48, 8):
        assert len({tuple(trial.params.values()) for trial in trials[start : start + 8]}) == 8


def small_space(published: bool) -> SearchSpace:
    low = 0.2 if published else 0.0
    parameters = {
        "lambda_ref": {"low": low, "high": low + 1 - 0.5, "step": 0.25},
        "queue_length": {"low": 14, "high": 15},
    }
    fixed: dict[str, Any] = {"clip_width": 0.2, "start_layer": 1, "end_layer": 7}
    return SearchSpace.model_validate({"method": "kvsmooth", "parameters": parameters, "fixed": fixed}).fitted(LAYERS)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_the_grid_is_tried_whole_and_nothing_twice(published: bool, size: int) -> None:
    space = small_space(published)  # with lambda_ref 0.7 and queue length 15 in it, or not
    how = plan("grid", size=size, published=published, space=space)
    trials = searched(how, 50)
    tried = {(trial.params["lambda_ref"], trial.params["queue_length"]) for trial in trials}
    low = space.parameters["lambda_ref"].low
    assert tried == {(low + step, queue) for step in (0, 0.25, 0.5) for queue in (14, 15)}
    assert len(trials) == 6


@settings(max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 1000))
def test_grid_points_are_every_combination_once(sizes: list[int], seed: int) -> None:
    names = list(SPACE.parameters)[: len(sizes)]
    ranges = {name: Range(low=1, high=size, step=1) for name, size in zip(names, sizes, strict=True)}
    space = SearchSpace(method="kvsmooth", parameters=ranges)
    points = [tuple(point.values()) for point in grid_points(space, seed)]
    assert len(points) == len(set(points)) == math.prod(sizes)
    assert all(list(point) == names for point in grid_points(space, seed))


def test_a_huge_grid_is_not_built() -> None:
    ranges = {name: Range(low=1, high=10**4, step=1) for name in SPACE.parameters}
    points = grid_points(SearchSpace(method="kvsmooth", parameters=ranges), 0)
    assert len({tuple(next(points).values()) for _ in range(100)}) == 100


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_nothing_is_tried_twice_while_there_is_something_new(sampler: str) -> None:
    """Samplers that learn come back to the best settings, most of all in a small space."""
    space = SPACE.model_copy(
        update={
            "parameters": SPACE.parameters
            | {
                "lambda_ref": Range(low=0.0, high=0.4, step=0.2),
                "queue_length": Range(low=15, high=15),
                "clip_width": Range(low=0.0, high=0.5, step=0.5),
                "start_layer": Range(low=0, high=1),
                "end_layer": Range(low=7, high=8),
            }
        }
    )
    trials = searched(plan(sampler, published=False, space=space), 30)
    tried = [tuple(trial.params.items()) for trial in trials]
    assert len(set(tried[:24])) == len(set(tried)) == 3 * 2 * 2 * 2
