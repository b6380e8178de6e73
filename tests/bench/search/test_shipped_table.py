"""The recorded tables that ship: of the demo as it ships, of the recorder's settings, fit to be searched."""

import hashlib

import pytest

from kvtune.bench.search.coverage import POOL, simulate
from kvtune.bench.search.run import GRID, compare
from kvtune.bench.search.samplers_and_rounds import DEFAULT, YARDSTICKS
from kvtune.bench.search.settings import SETS
from kvtune.bench.search.table import load_table
from kvtune.bench.search.world import World
from kvtune.chair import SCORER
from kvtune.demo import demo_model_path
from kvtune.demo.scenes import render


@pytest.mark.parametrize(("name", "path"), [("grid", GRID), ("pool", POOL)])
def test_it_is_of_what_ships(name, path):
    table = load_table(path)
    assert table.recorded.settings == SETS[name].settings
    assert table.recorded.scorer == SCORER
    assert table.recorded.weights == hashlib.sha256((demo_model_path() / "model.safetensors").read_bytes()).hexdigest()
    assert list(table.truth) == list(SETS[name].scenes)
    for scene in list(table.truth)[:20]:
        assert {one.category for one in render(table.recorded.scenes_seed, scene).objects} == set(table.truth[scene])


def test_its_front_is_a_trade_off():
    world = World(load_table(GRID))
    assert len({world.points[index] for index in world.front}) >= 3


def test_a_search_on_it_is_compared():
    document = compare(names=[DEFAULT.name], seeds=1, budget_trials=12, jobs=1)
    assert document["table"]["images"] == len(load_table(GRID).truth)
    assert [arm["arm"] for arm in document["arms"]] == [DEFAULT.name, *(arm.name for arm in YARDSTICKS)]
    assert list(document["default_over"]) == [arm.name for arm in YARDSTICKS]


def test_held_out_intervals_of_studies_drawn_from_the_pool_cover():
    result = simulate(studies=60, images=200, resamples=400)
    assert result["pool"]["images"] == len(SETS["pool"].scenes)
    # 95 % and four standard errors of some 50 studies.
    assert all(metric["held_out"]["covered"] >= 83 for metric in result["coverage"].values())
