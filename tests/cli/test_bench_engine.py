"""``kvtune bench engine`` from the command line: what is shown at the end, and when it does not get there."""

import functools
import json
import signal

import pytest
from small_architectures import SMALL

from kvtune.bench.engine import run as engine_bench
from kvtune.cli.main import main
from kvtune.models import random_weights
from kvtune.models.random_weights import ARCHITECTURES, Architecture

MEASURED = functools.cache(engine_bench.measure_device)
FLAGS = ["--device", "cpu", "--images", "2", "--repeats", "1"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Steps timed once, where it shows no more to do it five times, and a device measured once."""
    monkeypatch.setattr(engine_bench, "time_steps", functools.partial(engine_bench.time_steps, pairs=1))
    monkeypatch.setattr(engine_bench, "measure_device", MEASURED)


def run(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "engine", *arguments])
    return stopped.value.code


@pytest.mark.slow
def test_the_demo_as_a_table_with_everything_in_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(engine_bench, "TRIALS", (2, 3))
    assert run([*FLAGS, "--full", "--max-new-tokens", "8", "--png", str(tmp_path / "speed.png")]) in (0, None)
    shown = capsys.readouterr().out
    for line in (
        "KVSmooth attached over plain, per token (a / a0): ",
        "KVSmooth over none in the engine, per step: ",
        "  at 6 rows, ",
        "captions/s, e2 over a0: ",
        "captions/s, e3 over a0: ",
        "tokens/s, e3 over b: ",
        "extrapolated, not measured: 50 trials on 500 images in ",
        "from a whole run, too short to have a steady slice",
        "one lane against the full grid: 0 of 2 captions change, CHAIR_S by +0.0 points",
    ):
        assert line in shown
    assert "MiB predicted, " in shown and "stopped early" not in shown
    assert (tmp_path / "speed.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["llava-1.5", "instructblip"])
def test_random_weights_by_the_flags_of_a_gpu(capsys, monkeypatch, name):
    monkeypatch.setitem(random_weights.ARCHITECTURES, name, Architecture(ARCHITECTURES[name].family, SMALL[name]))
    monkeypatch.setattr(engine_bench, "TRIALS", (2, 3))
    monkeypatch.setattr(engine_bench, "FORCED_TOKENS", (3, 8))
    flags = [*FLAGS, "--dtype", "bfloat16", "--max-new-tokens", "8"]
    assert run(["--model", name, "--random-weights", *flags, "--json"]) in (0, None)
    result = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in result["arms"]] == ["a0", "a", "b", "c", "d", "e3"]
    assert 6 * 3 <= result["arms"][-1]["tokens"] <= 6 * 8
    assert result["forced_lengths"] and result["complete"] and result["model"] == f"{name} (random weights)"
    assert result["noise"]["chair_s_change"] is None and result["sweep"]["extrapolated"]
    assert all(setting["lambda_ref"] <= 0.5 for setting in result["settings"])


def test_the_first_setting_is_the_published_one_and_the_others_smooth_less():
    from kvtune.models import load_model
    from kvtune.presets import load_preset

    vlm = load_model("demo", "cpu")
    settings = engine_bench.bench_settings(vlm, 0)
    assert len(settings) == engine_bench.TRIALS[-1] == len(set(settings))
    assert settings[0] == load_preset("demo").method()
    assert max(setting.lambda_ref for setting in settings[1:]) <= engine_bench.MOST_SMOOTHING
    assert settings == engine_bench.bench_settings(vlm, 0) != engine_bench.bench_settings(vlm, 1)


def test_ways_that_are_measured_in_turns_say_their_plans_once(capsys):
    """The rows that a method has its own memory for are of another plan than those of none."""
    flags = ["--device", "cpu", "--images", "2", "--repeats", "2", "--max-new-tokens", "8", "--lanes", "64"]
    assert run([*flags, "--method", "kvsmooth"]) in (0, None)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("decoding ")]
    assert len(said) == len(set(said)) >= 2


def test_an_arm_that_fails_is_named_and_the_others_are_shown(capsys, monkeypatch):
    from kvtune.captioning import Captioner
    from kvtune.errors import KvtuneError

    monkeypatch.setattr(engine_bench, "TRIALS", (2, 3))
    original = Captioner.run

    def fails(self, requests):
        requests = list(requests)
        if len(requests) == 6 and requests[0].max_new_tokens == 12:  # e3, the warm-up over
            raise KvtuneError("out of device memory")
        return original(self, requests)

    monkeypatch.setattr(Captioner, "run", fails)
    assert run([*FLAGS, "--full", "--max-new-tokens", "12", "--json"]) == 1
    shown, said = capsys.readouterr()
    result = json.loads(shown)
    assert [arm["name"] for arm in result["arms"]] == ["a0", "a", "b", "c", "d", "e2"]
    assert result["failed"]["e3"] == "out of device memory"
    assert said.splitlines()[-1].startswith("kvtune: not measured: e3 (out of device memory)")


def test_a_failure_of_all_shows_what_there_is(capsys, monkeypatch):
    from kvtune.bench.engine import run as bench

    def fails(*arguments):
        raise MemoryError("no host memory")
        yield

    monkeypatch.setattr(bench, "measure", fails)
    assert run([*FLAGS, "--max-new-tokens", "4", "--json"]) == 1
    shown, said = capsys.readouterr()
    assert json.loads(shown)["arms"] == []
    assert said.splitlines()[-1].startswith("kvtune: out of memory; ")


def test_a_steady_slice_fits_into_the_default_on_a_gpu():
    """However many rows the engine plans."""
    from kvtune.bench.engine.sweep import steady_slice
    from kvtune.captioning.memory import MOST_ROWS

    for size in (engine_bench.QUICK_ON_A_GPU, engine_bench.FULL):
        finished = [float(n) for n in range(size.images * engine_bench.TRIALS[-1])]
        assert steady_slice(finished, MOST_ROWS).steady


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_shows_what_there_is(capsys, monkeypatch, how):
    from kvtune.captioning import Captioner

    monkeypatch.setattr(engine_bench, "TRIALS", (2, 3))
    original = Captioner.run

    def interrupted(self, requests):
        if "1 of 1, a: " in capsys.readouterr().err:
            signal.raise_signal(how)
        return original(self, requests)

    monkeypatch.setattr(Captioner, "run", interrupted)
    assert run(["--device", "cpu", "--images", "1", "--repeats", "1", "--max-new-tokens", "6"]) == 130
    shown, said = capsys.readouterr()
    assert "a0  generate(), one at a time, eager, no method, 1 captions" in shown
    assert "stopped early: what is missing was not measured" in shown
    assert said.splitlines()[-1] == "stopped"
