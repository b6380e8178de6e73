"""The recorded grid that ships: of the demo as it ships, of the recorder's settings, fit to be searched."""

import hashlib

from kvtune.chair import SCORER
from kvtune.demo import demo_model_path
from kvtune.search.bench.arms import DEFAULT, YARDSTICK
from kvtune.search.bench.compare import GRID, Request, compare
from kvtune.search.bench.settings import SETS
from kvtune.search.bench.table import load_table
from kvtune.search.bench.world import World


def test_it_is_of_what_ships():
    table = load_table(GRID)
    assert table.recorded.settings == SETS["grid"].settings
    assert table.recorded.scorer == SCORER
    assert table.recorded.weights == hashlib.sha256((demo_model_path() / "model.safetensors").read_bytes()).hexdigest()
    assert set(table.truth) <= set(SETS["grid"].scenes)


def test_its_front_is_a_trade_off():
    world = World(load_table(GRID))
    assert len({world.points[index] for index in world.front}) >= 3


def test_a_search_on_it_is_compared():
    document = compare(Request(arms=[DEFAULT.name], seeds=1, budget=12, jobs=1))
    assert document["table"]["images"] == len(load_table(GRID).truth)
    assert [arm["arm"] for arm in document["arms"]] == [DEFAULT.name, YARDSTICK.name]
    assert document["default_over_yardstick"]["ratio"] > 0
