"""The comparison as a whole, and as the command prints it."""

import json

import numpy as np
import pytest

from kvtune.bench.search.replay import NOT_REACHED, replay
from kvtune.bench.search.run import Request, compare
from kvtune.bench.search.samplers_and_rounds import ARMS
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
    assert "6 of 6" in err
    budget = 14 * world.images
    published = load_preset("demo").method().parameters()
    assert [arm["arm"] for arm in result["arms"]] == ["tpe-8-race", "random-8", "optuna-tpe-8"]
    medians = {}
    for arm in result["arms"]:
        replays = [replay(world, ARMS[arm["arm"]], seed, budget, 0.99, published) for seed in range(2)]
        for share in (0.95, 0.99):
            spent = []
            for one in replays:
                reached = [c for c, s in zip(one.captions, one.share, strict=True) if s >= share and c <= budget]
                spent.append(min(reached, default=NOT_REACHED * budget))
            assert arm["captions"][f"{share:.0%}"]["median"] == np.median(spent)
            assert arm["reached"][f"{share:.0%}"] == sum(one <= budget for one in spent)
            medians[arm["arm"], share] = np.median(spent)
        lost = [one.lost(world.points) for one in replays]
        assert [arm["front_points_lost"], arm["front_points_sampled"]] == np.sum(lost, axis=0).tolist()
    ratio = result["default_over_yardstick"]
    assert ratio["ratio"] == medians["tpe-8-race", 0.99] / medians["optuna-tpe-8", 0.99]
    assert ratio["interval"][0] <= ratio["ratio"] <= ratio["interval"][1]
    assert result["table"]["front"] == len({world.points[index] for index in world.front})


def test_processes_change_nothing(table_file):
    alone, together = (compare(Request(table_file, ["random-8-race", "nsga2-8"], 2, 10, jobs)) for jobs in (1, 2))
    assert alone == together


def test_the_table_names_every_arm(run, world, table_file):
    code, out, err = run("--table", table_file, "--arm", "random-8-race", "--seeds", 2, "--budget", 10, "--jobs", 1)
    assert code == 0, err
    assert "random-8-race" in out
    assert f"{len(world.settings)} settings of the demo on 120 images" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "tpe-3"), "tpe-3"),
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
        compare(Request(path, ["random-1"], 1, 10, 1))
