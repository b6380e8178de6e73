"""Replays against naive readings of what they are."""

import math
from itertools import pairwise, product

import numpy as np
import optuna
import pytest
from recorded_worlds import SMALL_AXES, made_up_table

from kvtune.bench.search.replay import Replay, replay
from kvtune.bench.search.samplers_and_rounds import ARMS, DEFAULT, YARDSTICKS, Arm, planner
from kvtune.bench.search.settings import grid_settings
from kvtune.bench.search.world import World
from kvtune.chair import COLUMNS
from kvtune.errors import RequestError
from kvtune.models.options import ModelOptions
from kvtune.presets import load_preset
from kvtune.search.rounds import Plan
from kvtune.search.samplers import STARTUP_TRIALS, round_seed
from kvtune.statistics.front import dominates
from kvtune.statistics.racing import Race, race_counts

PUBLISHED = load_preset("demo").method().parameters()


def scored(world, setting, images):
    rows = world.counts(setting, images)
    column = {name: rows[:, place] for place, name in enumerate(COLUMNS)}
    chair_s = 100 * np.mean(column["hallucinated_captions"])
    f1 = 200 * column["correct"].sum() / (column["mentioned"].sum() + column["present"].sum())
    return chair_s, f1


@pytest.fixture(scope="module")
def points(world):
    every = np.arange(world.images)
    return [scored(world, setting, every) for setting in range(len(world.settings))]


def test_truth_is_the_score_on_all_images(world, points):
    np.testing.assert_allclose(world.points, points)
    best = [one for one in points if not any(dominates(other, one) for other in points)]
    np.testing.assert_allclose(world.nadir, (max(x for x, _ in best), min(y for _, y in best)))
    assert world.share(world.points) == 1
    assert {world.points[index] for index in world.front} == {
        world.points[index] for index, one in enumerate(points) if one in best
    }


def test_share_is_the_dominated_area(world):
    """Counted in the cells between the lines through all points."""

    def area(some):
        xs = sorted({x for x, _ in world.points})
        ys = sorted({y for _, y in world.points})
        return sum(
            (right - left) * (top - bottom)
            for left, right in pairwise(xs)
            for bottom, top in pairwise(ys)
            if right <= world.nadir[0] and bottom >= world.nadir[1] and any(x <= left and y >= top for x, y in some)
        )

    some = [world.points[index] for index in range(0, len(world.points), 7)]
    assert world.share(some) == pytest.approx(area(some) / area(world.points))


def test_space_has_the_points_of_the_grid_and_no_others(world):
    (grid,) = world.space.grids()
    points = [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]
    assert points == world.settings
    for place, setting in enumerate(world.settings):
        assert world.index(world.space.full(setting)) == place
        assert world.index(setting | {"lambda_ref": setting["lambda_ref"] + 1e-12}) == place
    assert world.space == world.space.fitted(16)


@pytest.mark.parametrize(
    "settings",
    [
        grid_settings(SMALL_AXES)[:-1],
        grid_settings(SMALL_AXES)[::-1],
        grid_settings({**SMALL_AXES, "lambda_ref": (0.1, 0.3, 0.7)}),
        grid_settings({**SMALL_AXES, "queue_length": (4, 15, 48)}),
    ],
    ids=["a hole", "another order", "uneven numbers", "uneven whole numbers"],
)
def test_what_is_no_even_grid_is_refused(settings):
    with pytest.raises(RequestError, match="not a full grid"):
        World(made_up_table(20, settings=settings))


RACED = Arm("random", 8, True)


def test_race_is_the_rule_against_the_front_of_earlier_rounds(world):
    found = replay(world, RACED, 3, 60 * world.images)
    images = np.random.default_rng([3, world.images]).permutation(world.images)
    race = Race.of(world.images)
    costs = np.diff([0, *found.captions]).tolist()
    assert any(found.raced) and not all(found.raced)
    for begin in range(0, len(costs), 8):
        complete = [found.settings[place] for place in range(begin) if not found.raced[place]]
        best = [
            one for one in complete if not any(dominates(world.points[other], world.points[one]) for other in complete)
        ]
        members = [race_counts(world.counts(one, images)) for one in sorted(set(best))]
        for place in range(begin, min(begin + 8, len(costs))):
            trial = race_counts(world.counts(found.settings[place], images))
            stops = [look for look in race.looks if members and race.dominator(trial, members, look) is not None]
            assert costs[place] == (stops[0] if stops else world.images)
            assert found.raced[place] == bool(stops)


@pytest.mark.parametrize("name", ["random-1", "optuna-tpe-8", "tpe-8", "nsga2-1"])
def test_every_trial_is_paid_for_in_full_without_racing(world, name):
    found = replay(world, Arm.named(name), 1, 24 * world.images, enough=2)
    assert np.diff([0, *found.captions]).tolist() == [world.images] * len(found.settings)
    assert not any(found.raced) and 24 <= len(found.settings) < 32
    for place, share in enumerate(found.share):
        assert share == pytest.approx(world.share([world.points[one] for one in found.settings[: place + 1]]))


@pytest.mark.parametrize("name", ["random-8-race", "optuna-tpe-8-race", "tpe-8-race", "nsga2-8-race"])
def test_same_seed_same_search_and_trial_0_is_published(world, name):
    one, again, other = (replay(world, Arm.named(name), seed, 16 * world.images, 1.0, PUBLISHED) for seed in (0, 0, 1))
    assert one == again and one != other
    assert {one.settings[0], other.settings[0]} == {world.index(PUBLISHED)}
    shares = [
        world.share(
            [world.points[s] for s, raced in zip(one.settings[:end], one.raced[:end], strict=True) if not raced]
        )
        for end in range(1, len(one.settings) + 1)
    ]
    assert one.share == pytest.approx(shares)


def test_replay_ends_when_enough_is_reached(world):
    whole = replay(world, Arm.named("random-8"), 0, 100 * world.images)
    half = replay(world, Arm.named("random-8"), 0, 100 * world.images, enough=0.5)
    assert half.share[-1] >= 0.5 > half.share[-9]
    assert half.settings == whole.settings[: len(half.settings)] and len(half.settings) < len(whole.settings)


def test_optunas_arm_is_optuna_itself(world):
    """Rounds of one are what ``study.optimize`` does."""
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=round_seed(5, 0))
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)

    def objective(trial):
        parameters = world.space.parameters
        params = {
            name: trial.suggest_int(name, found.low, found.high, step=found.step)
            if found.whole
            else trial.suggest_float(name, found.low, found.high, step=found.step)
            for name, found in parameters.items()
        }
        return world.points[world.index(params)]

    study.optimize(objective, n_trials=30)
    found = replay(world, Arm.named("optuna-tpe-1"), 5, 30 * world.images)
    assert found.settings == [world.index(trial.params) for trial in study.trials]


def test_kvtunes_arms_are_planned_by_the_product(world):
    for name in ("tpe", "nsga2", "gp", "random"):
        plan = planner(Arm(name, 8, True), world.space, 4, PUBLISHED)
        assert isinstance(plan, Plan)
        assert (plan.sampler, plan.size, plan.seed, plan.constraints.race) == (name, 8, 4, True)


def test_default_arm_is_what_search_does():
    from kvtune.search.search_options import SearchOptions

    options = SearchOptions(model=ModelOptions("demo"))
    assert Arm(options.sampler, options.parallel_trials, options.race_confidence is not None) == DEFAULT
    assert (Arm("tpe", 1, False), Arm("optuna-tpe", 1, False)) == YARDSTICKS


def test_captions_spent():
    found = Replay([0, 1, 2], [False] * 3, [10, 30, 60], [0.2, 0.96, 1.0])
    assert found.spent(0.2, 100) == 10
    assert found.spent(0.95, 100) == 30
    assert found.spent(0.99, 100) == 60
    assert found.spent(0.99, 50) == math.inf
    assert found.spent(1.0, 60) == 60


def test_front_points_lost():
    points = [(10.0, 50.0), (20.0, 60.0), (30.0, 70.0), (25.0, 55.0), (10.0, 50.0)]
    assert Replay([0, 1, 2, 3], [False, True, False, True], [], []).lost(points) == (1, 3)
    assert Replay([0, 4, 3], [True, False, False], [], []).lost(points) == (0, 2)  # 4 is the same point as 0
    assert Replay([3], [False], [], []).lost(points) == (0, 1)


@pytest.mark.parametrize("arm", [*ARMS, Arm("tpe", 16, True), Arm("gp", 999, False)])
def test_an_arm_has_a_name(arm):
    assert Arm.named(arm.name) == arm


@pytest.mark.parametrize("name", ["", "tpe", "tpe-0", "tpe-08", "tpe-1000", "tpe-8-", "tpe-8-raced", "tpe-8\n"])
def test_no_other_name_is_an_arm(name):
    with pytest.raises(ValueError, match="unknown arm"):
        Arm.named(name)


def test_share_after_some_trials(world):
    found = replay(world, Arm.named("random-8"), 0, 20 * world.images, enough=2)
    assert [found.after(trials) for trials in (1, 9, len(found.share), 1000)] == [
        found.share[place] for place in (0, 8, -1, -1)
    ]
