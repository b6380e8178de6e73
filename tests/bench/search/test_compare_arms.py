"""The comparison as a whole, and as the command prints it."""

import json
import math

import numpy as np
import pytest

from kvtune.bench.search.captions_spent import quartiles, ratio
from kvtune.bench.search.replay import replay
from kvtune.bench.search.run import compare
from kvtune.bench.search.samplers_and_rounds import Arm
from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.presets import load_preset


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "search", *map(str, arguments)])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_json_is_made_of_the_replays(run, world, table_file):
    arms = ["--arm", "tpe-8-race", "--arm", "random-8"]
    code, out, err = run("--table", table_file, *arms, "--seeds", 2, "--budget", 14, "--jobs", 1, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert "8 of 8" in err
    budget = 14 * world.images
    published = load_preset("demo").method().parameters()
    assert [arm["arm"] for arm in result["arms"]] == ["tpe-8-race", "random-8", "tpe-1", "optuna-tpe-1"]
    found = {}
    for arm in result["arms"]:
        replays = [replay(world, Arm.named(arm["arm"]), seed, budget, 0.99, published) for seed in range(2)]
        for share in (0.95, 0.99):
            spent = []
            for one in replays:
                reached = [c for c, s in zip(one.captions, one.share, strict=True) if s >= share and c <= budget]
                spent.append(min(reached, default=math.inf))
            lower = sorted(spent)[0]  # the median of two searches is one of them
            assert arm["captions"][f"{share:.0%}"]["median"] == (lower if math.isfinite(lower) else None)
            assert arm["reached"][f"{share:.0%}"] == sum(one <= budget for one in spent)
            found[arm["arm"], share] = spent
        shares = sorted(one.share[min(50, len(one.share)) - 1] for one in replays)
        assert arm["share_after"] == {"50": {"median": shares[0], "quartiles": shares}}
        lost = [one.lost(world.points) for one in replays]
        assert [arm["front_points_lost"], arm["front_points_sampled"]] == np.sum(lost, axis=0).tolist()
    assert result["default_over"] == {
        yardstick: ratio(found["tpe-8-race", 0.99], found[yardstick, 0.99]) for yardstick in ("tpe-1", "optuna-tpe-1")
    }
    assert result["table"]["front"] == len({world.points[index] for index in world.front})


def test_processes_change_nothing(table_file):
    alone, together = (compare(table_file, ["random-8-race", "nsga2-8"], 2, 10, jobs) for jobs in (1, 2))
    assert alone == together


def test_the_table_names_every_arm(run, world, table_file):
    code, out, err = run("--table", table_file, "--arm", "random-8-race", "--seeds", 2, "--budget", 10, "--jobs", 1)
    assert code == 0, err
    assert "random-8-race" in out
    assert f"{len(world.settings)} settings of the demo on 120 images" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--arm", "tpe-8-faced"),
            "'tpe-8-faced'; an arm is a sampler (random, optuna-tpe, tpe, nsga2, gp)",
        ),
        (("--arm", "tpe-8", "--arm", "random-1", "--arm", "tpe-8"), "--arm tpe-8 is there twice; name each arm once"),
        (("--table", "no.npz"), "no.npz does not exist; record it: python -m kvtune.bench.search.record --out no.npz"),
        (("--coverage", "--table", "pool.npz"), "python -m kvtune.bench.search.record --set pool --out pool.npz"),
    ],
)
def test_wrong_requests_are_one_line(run, table_file, arguments, message):
    given = () if "--table" in arguments else ("--table", table_file)
    code, out, err = run(*given, *arguments)
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert message in line


def test_a_table_that_is_no_grid_is_refused(tmp_path):
    from recorded_worlds import SMALL_AXES, made_up_table

    from kvtune.bench.search.settings import grid_settings

    path = tmp_path / "some.npz"
    made_up_table(10, settings=grid_settings(SMALL_AXES)[:-1]).save(path)
    with pytest.raises(RequestError, match="not a full grid"):
        compare(path, ["random-1"], 1, 10, 1)


def test_quartiles_are_those_of_a_search_and_none_where_it_did_not_arrive():
    assert quartiles([5, 1, 4, 2, 3]) == {"median": 3, "quartiles": [2, 4]}
    assert quartiles([1, 2, 3, math.inf]) == {"median": 2, "quartiles": [1, 3]}
    assert quartiles([1, math.inf, math.inf]) == {"median": None, "quartiles": [1, None]}
    assert quartiles([math.inf]) == {"median": None, "quartiles": [None, None]}


def test_a_ratio_is_given_only_where_every_search_arrived():
    found = ratio([10, 12, 14], [20, 24, 28])
    assert found["ratio"] == 0.5
    assert 10 / 28 <= found["interval"][0] < 0.5 < found["interval"][1] <= 14 / 20
    assert ratio([10], [math.inf]) == ratio([math.inf], [10]) == {"ratio": None, "interval": None}


def test_searches_that_do_not_arrive_are_said(run, table_file):
    code, out, err = run("--table", table_file, "--arm", "tpe-8-race", "--seeds", 2, "--budget", 3, "--jobs", 1)
    assert code == 0, err
    said = " ".join(out.split())
    assert "tpe-8-race got to 99% in 0 of 2 searches, tpe-1 in 0: no ratio is given where one did not" in said
    assert ">0.4 (>0.4->0.4)" in said
