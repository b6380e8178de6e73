"""``kvtune search``, ``studies``, ``rescore`` and ``export`` as their users run them, with a model that is quick."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fake_search import FakeCaptioner, FakeRequest
from small_coco import file_name, write_coco
from timed_captioner import Clock

from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.models.options import ModelOptions
from kvtune.presets import load_preset
from kvtune.study.deadline import Deadline
from kvtune.study.lock import locked
from kvtune.text import number_of

pytestmark = pytest.mark.usefixtures("without_optuna")

IMAGES = list(range(1, 41))
COUNTS = ["--images", "6", "--holdout-images", "4"]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", "val2014", IMAGES)


@pytest.fixture(autouse=True)
def quick_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A model and a captioner that need no torch, in the place of the real ones."""
    seen = SimpleNamespace(opened=[], dtype="float32", layers=16, commits={}, fail=None, clock=Clock())

    def locate(name: str) -> tuple[None, str, str]:
        if name == "no-such-model":
            raise RequestError("unknown model 'no-such-model'; there is demo, quick")
        return None, f"/models/{name}", name

    def commit_of(name: str, revision: str | None = None) -> str | None:
        return revision if revision in seen.commits.values() else seen.commits.get(revision)

    def model(options: ModelOptions) -> Any:
        dtype = options.dtype if options.dtype != "auto" else seen.dtype
        return SimpleNamespace(
            name=options.name,
            model_id=locate(options.name)[1],
            revision=commit_of(options.name, options.revision),
            family=SimpleNamespace(name="quick"),
            n_layers=seen.layers,
            dtype_name=dtype + "-4bit" * options.load_in_4bit + "-8bit" * options.load_in_8bit,
            device_name="cpu",
            default_prompt="Please describe this image in detail.",
            published_preset="demo" if options.name == "quick" else None,
        )

    class Captioner(FakeCaptioner):
        def __init__(self, options: ModelOptions, prompt: str | None, max_new_tokens: int, note: Any = None) -> None:
            super().__init__()
            self.vlm = model(options)
            seen.opened.append((options, prompt, max_new_tokens))

        def finish(self, batch: list[Any]) -> Any:
            if seen.fail is not None:
                raise seen.fail
            seen.clock.now += 10
            for request in batch:
                assert Path(request.image).is_file()
            yield from super().finish(batch)

    models = SimpleNamespace(locate=locate, commit_of=commit_of)
    monkeypatch.setitem(sys.modules, "kvtune.models", models)
    captioning = SimpleNamespace(CaptionRequest=FakeRequest, open_captioner=Captioner)
    monkeypatch.setitem(sys.modules, "kvtune.captioning", captioning)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVTUNE_COCO", raising=False)
    return seen


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture
def search(run: Any, coco: Path) -> Any:
    def search(*more: Any) -> tuple[int, str, str]:
        return run("search", "--model", "quick", "--coco", coco, *COUNTS, "--sampler", "random", *more)

    return search


def refused(result: tuple[int, str, str], code: int = 2) -> str:
    assert result[0] == code, result
    assert result[1] == ""
    last = result[2].strip().splitlines()[-1]
    assert last.startswith("kvtune: ")
    assert "Traceback" not in result[2]
    return last


def test_search_then_look_then_export(search: Any, run: Any, tmp_path: Path, quick_model: SimpleNamespace) -> None:
    code, out, err = search("--trials", 5, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["study"] == "quick-kvsmooth"
    assert [trial["number"] for trial in document["trials"]] == [0, 1, 2, 3, 4]
    assert document["trials"][0]["published"]
    assert document["trials"][0]["params"] == load_preset("demo").parameters
    assert document["baseline"]["images"] == 6
    assert quick_model.opened == [(ModelOptions("quick"), None, 512)]
    assert "trial 4: CHAIR_S" in err

    study = tmp_path / "studies" / "quick-kvsmooth"
    manifest = json.loads((study / "study.json").read_text())
    assert len(manifest["tune"]["image_ids"]) == 6 and len(manifest["holdout"]["image_ids"]) == 4
    assert not set(manifest["tune"]["image_ids"]) & set(manifest["holdout"]["image_ids"])
    truth = json.loads((study / "ground_truth.json").read_text())
    assert {int(image_id) for image_id in truth} == {*manifest["tune"]["image_ids"], *manifest["holdout"]["image_ids"]}

    code, out, _ = run("studies", "--json")
    assert code == 0 and json.loads(out)[0]["trials"] == {"complete": 5}
    code, out, _ = run("studies")
    assert code == 0 and "quick-kvsmooth" in out and "5 complete" in out

    code, out, _ = run("export", "--out", tmp_path / "preset.json", "--select", "min-chair", "--json")
    exported = json.loads(out)
    best = min(document["trials"], key=lambda trial: (trial["chair_s"], -trial["f1"]))
    assert (exported["trial"], exported["rule"], exported["on"]) == (best["number"], "lowest CHAIR_S", "tune")
    assert load_preset(tmp_path / "preset.json").parameters == best["params"]
    assert exported["preset"] == json.loads((tmp_path / "preset.json").read_text())

    code, out, _ = run("export", "quick-kvsmooth", "--select", "trial:2")
    assert "chosen on these images, which flatter it: kvtune validate quick-kvsmooth asks others" in out
    assert code == 0 and "trial 2 of quick-kvsmooth: trial:2 (on tune images)" in out
    assert load_preset(study / "presets" / "quick-kvsmooth-trial-2.json").study.trial == 2  # type: ignore[union-attr]

    code, out, _ = run("rescore", "--json")
    again = json.loads(out)
    assert code == 0 and again.pop("changed") == 0 and again == document
    code, out, _ = run("rescore", study)
    assert code == 0 and "6 settings scored again, 0 with other scores" in out


def test_without_json_there_is_a_table_and_what_to_do_next(search: Any) -> None:
    code, out, err = search("--trials", 3)
    assert code == 0
    assert "CHAIR_S" in out and "baseline" in out
    assert len([line for line in out.splitlines() if line.startswith("3 trials ") and "(0, 100)" in line]) == 1
    assert "kvtune export quick-kvsmooth --out preset.json" in out
    assert "study studies/quick-kvsmooth begins" in err
    code, out, err = search("--trials", 3, "--studies-dir", "else where")
    assert code == 0 and "kvtune pareto 'else where/quick-kvsmooth'" in out, "a command that finds it"
    assert "captions to write" in err and "captions to write" not in out


def test_quiet_says_nothing_but_the_result(search: Any) -> None:
    code, out, err = search("--trials", 2, "--quiet", "--json")
    assert code == 0 and err == "" and json.loads(out)


def test_the_same_command_continues_and_more_trials_extend(search: Any, quick_model: SimpleNamespace) -> None:
    first = json.loads(search("--trials", 3, "--json")[1])
    again = json.loads(search("--trials", 3, "--json")[1])
    more = json.loads(search("--trials", 6, "--json")[1])
    assert again == first
    for before, after in zip(first["trials"], more["trials"][:3], strict=True):
        assert (before["params"], before["chair_s"], before["f1"]) == (after["params"], after["chair_s"], after["f1"])
    assert len(more["trials"]) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", 1], "seed 0, but this command has 1"),
        (["--sampler", "nsga2"], 'sampler "random", but this command has "nsga2"'),
        (["--parallel-trials", 3], "parallel_trials 8, but this command has 3"),
        (["--prompt", "Look."], "prompt"),
        (["--max-new-tokens", 99], "max_new_tokens 512, but this command has 99"),
        (["--no-race"], "race_confidence 0.95, but this command has none"),
        (["--race-confidence", 0.9], "race_confidence 0.95, but this command has 0.9"),
        (["--min-f1", "baseline - 2.0"], 'min_f1 none, but this command has "baseline-2"'),
        (["--min-words", 30], 'min_words none, but this command has "30"'),
        (["--from", "quick-kvsmooth"], "was begun without --from, and its first trials are fixed"),
        (["--from", "quick-kvsmoth"], "there is no study 'quick-kvsmoth', did you mean 'quick-kvsmooth'?"),
        (["--seed", 1, "--no-race"], "give --seed 0, --race --race-confidence 0.95, or another --study name"),
        (["--images", 7], "subset"),
        (["--holdout-images", 5], "study quick-kvsmooth was begun with 4 held-out images, not 5"),
    ],
)
def test_a_command_that_would_mix_two_studies_is_refused(search: Any, change: list[Any], message: str) -> None:
    search("--trials", 1)
    assert message in refused(search("--trials", 2, *change))


def test_another_model_or_dtype_is_refused(search: Any, run: Any, coco: Path, quick_model: SimpleNamespace) -> None:
    search("--trials", 1, "--study", "mine")
    other = ["search", "--model", "other", "--coco", coco, *COUNTS, "--sampler", "random", "--study", "mine"]
    assert 'model "/models/quick", but this command has "/models/other"' in refused(run(*other))
    quick_model.dtype = "bfloat16"
    assert 'dtype "float32", but this command has "bfloat16"' in refused(search("--study", "mine"))


@pytest.mark.parametrize("change", [["--seed", 5], ["--images", 7], ["--holdout-images", 5]])
def test_what_is_known_before_the_model_is_refused_before_it_loads(
    search: Any, change: list[Any], quick_model: SimpleNamespace
) -> None:
    search("--trials", 1)
    quick_model.opened.clear()
    refused(search(*change))
    assert quick_model.opened == []


ONE, TWO = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--race-confidence", 1], "--race-confidence must be between 0 and 1, not 1"),
        (["--min-f1", "high"], "'high' is no floor; write a number (72), baseline, or baseline-2"),
        (["--min-words=-5"], "'-5' is no floor"),
        (["--timeout", "soon"], "--timeout takes a time like 2h, 90m, 1h30m or 45s, not 'soon'"),
        (["--timeout", "30"], "--timeout 30 has no unit; write 30s, 30m or 30h"),
        (["--from", "nothing"], "there is no study 'nothing'"),
    ],
)
def test_what_a_search_cannot_be_asked(
    search: Any, options: list[Any], message: str, quick_model: SimpleNamespace, tmp_path: Path
) -> None:
    assert message in refused(search("--trials", 1, *options))
    assert quick_model.opened == [] and not (tmp_path / "studies").exists()


def test_floors_keep_trials_off_the_front(search: Any, run: Any) -> None:
    plain = json.loads(search("--trials", 8, "--study", "plain", "--json")[1])
    floor = sorted(trial["mean_words"] for trial in plain["trials"])[4]
    document = json.loads(search("--trials", 8, "--min-words", f"{floor:.6f}", "--min-f1", "baseline-100", "--json")[1])
    assert document["floors"] == {"f1": document["baseline"]["f1"] - 100, "mean_words": pytest.approx(floor)}
    below = [trial["number"] for trial in document["trials"] if trial["mean_words"] < document["floors"]["mean_words"]]
    assert [trial["number"] for trial in document["trials"] if trial["below_floor"] == ["mean_words"]] == below != []
    assert document["front"] and not set(document["front"]) & set(below)
    message = refused(run("export", "--select", f"trial:{below[0]}", "--out", "preset.json"))
    assert f"trial {below[0]} of quick-kvsmooth is below its floor of F1 " in message
    assert f"and words {floor:.1f}; choose one that is not" in message
    assert "On the front only with" in " ".join(run("pareto")[1].split())


def test_a_search_ends_when_its_time_is_up_and_the_same_command_goes_on(
    search: Any, quick_model: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kvtune.study.deadline.Deadline", lambda seconds: Deadline(seconds, quick_model.clock))
        code, out, err = search("--trials", 3, "--timeout", "15s", "--json")
    assert code == 0
    assert "time is up after 0 of 3 finished trials; no caption is lost, and the same command goes on from here" in err
    assert json.loads(out)["trials"] == [] and json.loads(out)["baseline"] is not None
    code, out, err = search("--trials", 3, "--timeout", "1h", "--json")
    assert code == 0 and "time is up" not in err
    other = json.loads(search("--trials", 3, "--study", "straight", "--json")[1])
    assert json.loads(out)["trials"] == other["trials"]


def test_making_ready_is_part_of_the_time(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvtune.study.subsets.Data.ground_truth", lambda data: time.sleep(60))
    over = "the time of --timeout was over before the first caption, for making ready takes longer; give it more"
    assert refused(search("--timeout", "0.1s"), 1) == f"kvtune: {over}"
    assert not Path("studies").exists()


def test_a_search_begins_with_the_front_of_another(search: Any, tmp_path: Path) -> None:
    first = json.loads(search("--trials", 5, "--study", "first", "--seed", 3, "--json")[1])
    code, out, err = search("--trials", 4, "--study", "second", "--from", "first", "--json")
    assert code == 0
    params = [trial["params"] for trial in first["trials"]]
    wanted = [params[number] for number in first["front"] if number != 0]
    assert f"{len(wanted)} of {number_of(len(first['front']), 'setting')} on the front of first tried first" in err
    asked = [trial["params"] for trial in json.loads(out)["trials"]]
    assert asked[1 : 1 + len(wanted)] == wanted[:3]
    shutil.rmtree(tmp_path / "studies" / "first")
    assert search("--trials", 5, "--study", "second", "--from", "first")[0] == 0
    assert search("--trials", 6, "--study", "second")[0] == 0
    assert "begun with --from first" in refused(search("--trials", 7, "--study", "second", "--from", "second"))


def test_a_study_goes_on_at_its_own_commit(search: Any, run: Any, coco: Path, quick_model: SimpleNamespace) -> None:
    quick_model.commits = {None: ONE, "main": ONE, "v2": TWO}
    assert search("--trials", 1)[0] == 0
    manifest = Path("studies/quick-kvsmooth/study.json")
    assert json.loads(manifest.read_text())["fingerprint"]["revision"] == ONE

    quick_model.commits = {None: TWO, "main": TWO, "v1": ONE, "v2": TWO}  # the Hub's newest is another one now
    quick_model.opened.clear()
    for arguments in ((), ("--revision", "v1"), ("--revision", ONE)):
        code, _, err = search("--trials", 2, *arguments)
        assert code == 0, err
    assert [options.revision for options, *_ in quick_model.opened] == [ONE, "v1", ONE]
    for revision in ("v2", "main"):
        message = refused(search("--trials", 3, "--revision", revision))
        assert f'begun with revision "{ONE}", but this command has "{TWO}"' in message
    assert len(quick_model.opened) == 3, "no weights were loaded to find that out"
    assert json.loads(manifest.read_text())["fingerprint"]["revision"] == ONE
    code, _, err = run("validate", "--coco", coco)
    assert code == 0, err
    assert quick_model.opened[-1][0].revision == ONE


def test_a_study_of_quantized_weights_stays_one(
    search: Any, run: Any, coco: Path, quick_model: SimpleNamespace
) -> None:
    assert search("--trials", 1, "--load-in-4bit")[0] == 0
    assert (quick_model.opened[-1][0].load_in_4bit, quick_model.opened[-1][0].load_in_8bit) == (True, False)
    assert 'dtype "float32-4bit", but this command has "float32"' in refused(search("--trials", 2))
    assert '"float32-4bit", but this command has "float32-8bit"' in refused(search("--trials", 2, "--load-in-8bit"))
    code, _, err = search("--trials", 2, "--load-in-4bit")
    assert code == 0, err
    code, _, err = run("validate", "--coco", coco)
    assert code == 0, err
    assert quick_model.opened[-1][0].dtype == "float32-4bit"


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ""])
def test_a_study_name_with_a_path_is_refused(search: Any, tmp_path: Path, name: str) -> None:
    assert "cannot be a study's name" in refused(search("--study", name))
    assert not (tmp_path / "studies").exists()


def test_bad_requests_are_one_line(search: Any, run: Any, coco: Path, tmp_path: Path) -> None:
    assert "--trials must be at least 1" in refused(search("--trials", 0))
    assert "--lanes must be auto" in refused(search("--lanes", "many"))
    assert "--seed must be at least 0, not '-1'" in refused(search("--seed", -1))
    assert "--seed must be a whole number, not 'x'" in refused(search("--seed", "x"))
    assert "--sampler 'tp' is not one of 'tpe', 'nsga2'" in refused(search("--sampler", "tp"))
    assert "unknown method 'nosuch'" in refused(search("--method", "nosuch"))
    assert "kvtune data download" in refused(run("search", "--model", "quick", "--coco", tmp_path / "no"))
    assert "unknown model 'no-such-model'" in refused(
        run("search", "--model", "no-such-model", "--coco", coco, *COUNTS)
    )
    assert "ask for fewer" in refused(search("--images", 1000))
    assert "give one of the two" in refused(search("--subset", "opera500"))
    no_subset = run("search", "--model", "quick", "--coco", coco, "--subset", "nosuch")
    assert "there is no subset" in refused(no_subset)
    assert "is no database URL" in refused(search("--storage", "nonsense"))
    assert "no study 'nosuch'" in refused(run("export", "nosuch"))
    assert "no study" in refused(run("rescore"))
    assert "no study" in refused(run("export", "../../etc"))
    assert "needs a step" in refused(search("--sampler", "grid", "--space", space(tmp_path, step=None)))
    assert not (tmp_path / "studies").exists(), "nothing was begun"


def space(tmp_path: Path, **changes: Any) -> Path:
    searched = {"low": 0.0, "high": 1.0, "step": 0.25} | changes
    data = {"method": "kvsmooth", "parameters": {"lambda_ref": {k: v for k, v in searched.items() if v is not None}}}
    data["fixed"] = {"start_layer": 1, "end_layer": 7}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_space_of_ones_own(search: Any, tmp_path: Path) -> None:
    code, out, err = search("--space", space(tmp_path), "--sampler", "grid", "--trials", 50, "--json")
    assert code == 0
    trials = json.loads(out)["trials"]
    assert sorted(trial["params"]["lambda_ref"] for trial in trials) == [0, 0.25, 0.5, 0.75, 1]
    assert "the published preset demo is not in the search space" in err
    assert "the grid has no more points after 5 trials" in err


def test_a_setting_that_a_method_declares_as_published_is_trial_0(
    search: Any, tmp_path: Path, quick_model: SimpleNamespace
) -> None:
    quick_model.layers = 32
    code, out, err = search("--model", "llava-1.5", "--method", "middle_layers", "--trials", 2, "--json")
    assert code == 0, err
    first, second = json.loads(out)["trials"]
    assert first["params"] == {"alpha": 0.5, "start_layer": 5, "end_layer": 19}
    assert first["published"] and not second["published"]
    assert "trial 0 is the setting published for llava-1.5: code of ZhangqiJiang07/middle_layers" in err
    manifest = json.loads((tmp_path / "studies" / "llava-1.5-middle_layers" / "study.json").read_text())
    assert manifest["published"]["source"] == "code of ZhangqiJiang07/middle_layers"
    code, out, err = search("--model", "llava-1.5", "--method", "middle_layers", "--trials", 3, "--json")
    assert code == 0 and "is the setting" not in err
    assert [trial["params"] for trial in json.loads(out)["trials"][:2]] == [first["params"], second["params"]]


@pytest.mark.parametrize(("method", "listed"), [("ad_hh", "heads"), ("var", "sink_dims"), ("var+ad_hh", "heads")])
def test_parameters_that_are_lists_are_kept(
    search: Any, run: Any, tmp_path: Path, quick_model: SimpleNamespace, method: str, listed: str
) -> None:
    quick_model.layers = 32
    first = search("--model", "llava-1.5", "--method", method, "--trials", 1, "--json")
    code, out, err = search("--model", "llava-1.5", "--method", method, "--trials", 2, "--json")
    assert first[0] == code == 0, err
    trials = json.loads(out)["trials"]
    assert trials[0]["params"] == json.loads(first[1])["trials"][0]["params"]
    assert isinstance(trials[0]["params"][listed], list)
    assert run("export", "--select", "trial:1", "--out", tmp_path / "preset.json")[0] == 0
    assert load_preset(tmp_path / "preset.json").method().parameters() == trials[1]["params"]


def test_no_setting_is_published_for_another_model(search: Any, quick_model: SimpleNamespace) -> None:
    code, out, _ = search("--method", "pai", "--trials", 1, "--json")
    assert code == 0 and not json.loads(out)["trials"][0]["published"]
    # A folder may be called as the model is.
    code, out, _ = search("--model", "llava-1.5", "--method", "pai", "--trials", 1, "--json")
    assert code == 0 and not json.loads(out)["trials"][0]["published"]


def test_a_published_setting_outside_the_space_is_told_of(
    search: Any, tmp_path: Path, quick_model: SimpleNamespace
) -> None:
    quick_model.layers = 32
    path = tmp_path / "space.yaml"
    path.write_text("method: pai\nparameters: {alpha: {low: 0.5, high: 1.0}}\nfixed: {start_layer: 2, end_layer: 32}")
    code, out, err = search("--model", "llava-1.5", "--method", "pai", "--space", path, "--trials", 1, "--json")
    assert code == 0 and not json.loads(out)["trials"][0]["published"]
    source = "README of LALBJ/PAI, without its contrast"
    assert f"published for llava-1.5 ({source}) is not in the search space and is no trial" in err


def test_a_stack_is_searched_and_exported(search: Any, run: Any, tmp_path: Path) -> None:
    code, out, err = search("--method", "kvsmooth+pai", "--trials", 3, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["study"] == "quick-kvsmooth-pai"
    names = ["lambda_ref", "queue_length", "clip_width", "kvsmooth.start_layer", "kvsmooth.end_layer", "adaptive"]
    names += ["target", "alpha", "pai.start_layer", "pai.end_layer"]
    assert list(document["trials"][2]["params"]) == names
    assert run("export", "--select", "trial:2", "--out", tmp_path / "preset.json")[0] == 0
    preset = load_preset(tmp_path / "preset.json")
    assert preset.schema_version == 2
    assert [part.name for part in preset.method().parts] == ["kvsmooth", "pai"]
    assert preset.method().parameters() == document["trials"][2]["params"]


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("pai+pai", "has pai twice"),
        ("kvsmooth+pia", "unknown method 'pia'"),
        ("kvsmooth+", "unknown method ''"),
        ("ad_hh", "needs heads, which is not known for this model: write a search space"),
        ("kvsmooth+ad_hh", "needs heads, which is not known for this model: write a search space"),
    ],
)
def test_methods_that_cannot_be_searched(search: Any, tmp_path: Path, method: str, says: str) -> None:
    assert says in refused(search("--method", method, "--trials", 1))
    assert not (tmp_path / "studies").exists()


def test_a_study_goes_on_with_its_own_space(search: Any, tmp_path: Path) -> None:
    assert search("--space", space(tmp_path), "--trials", 1)[0] == 0
    code, out, _ = search("--trials", 4, "--json")
    assert code == 0 and {trial["params"]["start_layer"] for trial in json.loads(out)["trials"]} == {1}
    line = refused(search("--space", space(tmp_path, high=0.5), "--trials", 5))
    assert "space.parameters.lambda_ref.high 1.0, but this command has 0.5" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"high": 2.0}, "lambda_ref must be a number from 0 to 1"), ({"hihg": 1.0}, "lambda_ref.hihg")],
)
def test_a_space_that_is_wrong(search: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    line = refused(search("--space", space(tmp_path, **changes)))
    assert message in line and "space.yaml" in line


def test_an_image_that_is_none_fails_before_the_first_trial(search: Any, coco: Path, tmp_path: Path) -> None:
    for image_id in IMAGES:
        (coco / "val2014" / file_name("val2014", image_id)).write_bytes(b"no image")
    assert "10 of 10 images cannot be read" in refused(search())
    (coco / "val2014" / file_name("val2014", 7)).unlink()
    for image_id in IMAGES:
        (coco / "val2014" / file_name("val2014", image_id)).unlink(missing_ok=True)
    assert "kvtune data download" in refused(search())
    assert not (tmp_path / "studies").exists()


def test_no_trial_keeps_the_baselines_f1(search: Any, run: Any, tmp_path: Path) -> None:
    document = json.loads(search("--trials", 3, "--json")[1])
    ledger = tmp_path / "studies" / "quick-kvsmooth" / "trials.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    for line in lines:
        if line["number"] is None:
            line["metrics"]["f1"] = 99.5
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    line = refused(run("export", "--out", tmp_path / "preset.json"), code=1)
    closest = min(document["trials"], key=lambda trial: (-trial["f1"], trial["chair_s"]))["number"]
    assert f"--select trial:{closest} takes it" in line and "99.50" in line
    assert not (tmp_path / "preset.json").exists()


def test_a_study_in_use(search: Any, tmp_path: Path) -> None:
    search("--trials", 1)
    with locked(tmp_path / "studies" / "quick-kvsmooth"):
        told = refused(search("--trials", 2))
        assert f"is in use by process {os.getpid()}; wait for it, or choose another --study name" in told


def test_a_failure_midway_is_one_line_and_exit_code_1(search: Any, quick_model: SimpleNamespace) -> None:
    quick_model.fail = RuntimeError("CUDA error: device lost\nmore\nlines")
    line = refused(search("--trials", 2), code=1)
    assert "CUDA error: device lost; no caption is lost, and once that is mended, the same command goes on" in line
    quick_model.fail = None
    assert search("--trials", 2)[0] == 0


def test_interrupted_by_the_keyboard(
    search: Any, quick_model: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["search", "--model", "quick", "--prompt", "It's here."]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/kvtune", *arguments])
    quick_model.fail = KeyboardInterrupt()
    code, out, err = search("--trials", 2)
    assert code == 130 and out == ""
    assert f"stopped; no caption is lost. Go on with: kvtune {shlex.join(arguments)}" in err
    quick_model.fail = None
    assert search("--trials", 2)[0] == 0


def test_leftovers_without_a_manifest_are_not_taken_over(search: Any, tmp_path: Path) -> None:
    search("--trials", 1)
    (tmp_path / "studies" / "quick-kvsmooth" / "study.json").unlink()
    assert "has trials but no study.json" in refused(search("--trials", 1))


def test_tune_images_given_by_a_file(search: Any, run: Any, tmp_path: Path, coco: Path) -> None:
    from kvtune.coco import Subset

    Subset.of("mine", "val2014", [6, 3, 9]).save(tmp_path / "mine.json")
    images = ["--subset", "mine.json", "--holdout-images", 4]
    code, out, err = run("search", "--model", "quick", "--coco", coco, *images, "--trials", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["subset"]["name"] == "mine"
    manifest = json.loads((tmp_path / "studies" / "quick-kvsmooth" / "study.json").read_text())
    assert manifest["tune"]["image_ids"] == [6, 3, 9]
    assert len(manifest["holdout"]["image_ids"]) == 4 and not {6, 3, 9} & set(manifest["holdout"]["image_ids"])


PROCESS = """
import time
from types import SimpleNamespace
from fake_search import FakeCaptioner, FakeRequest

class Captioner(FakeCaptioner):
    def __init__(self, *arguments):
        super().__init__()
        self.vlm = vlm

    def finish(self, batch):
        time.sleep(0.3)
        yield from super().finish(batch)

vlm = SimpleNamespace(name="quick", model_id="/models/quick", revision=None, family=SimpleNamespace(name="quick"),
    n_layers=16, dtype_name="float32", device_name="cpu", default_prompt="Please describe this image in detail.",
    published_preset="demo")
import kvtune.models
kvtune.models.locate, kvtune.models.commit_of = lambda name: (None, vlm.model_id, name), lambda *arguments: None
sys.modules["kvtune.captioning"] = SimpleNamespace(CaptionRequest=FakeRequest, open_captioner=Captioner)
from kvtune.cli.main import main
main()
"""


def test_sigterm_stops_a_real_process_cleanly(run: Any, tmp_path: Path, coco: Path) -> None:
    """A process of its own, with everything real but the model; SIGTERM, then the same command to the end."""
    support = Path(__file__).parent.parent / "support"
    script = tmp_path / "run.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(support)!r})\n{PROCESS}")
    command = ["search", "--model", "quick", "--coco", str(coco), *COUNTS, "--trials", "4", "--json"]
    process = subprocess.Popen(
        [sys.executable, script, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    captions = tmp_path / "studies" / "quick-kvsmooth" / "captions" / "trial-0001.jsonl"
    for _ in range(600):
        if process.poll() is not None or (captions.exists() and captions.stat().st_size):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and "Traceback" not in err
    assert "Go on with: kvtune search --model quick" in err
    code, out, err = run(*command)
    assert code == 0, err
    assert len(json.loads(out)["trials"]) == 4
