"""Presets: the schema of the design, those that ship, saving and loading."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvtune.demo import demo_model_path
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import KVSmooth
from kvtune.presets import Preset, load_preset, preset_names

KEYS = [
    "schema_version",
    "name",
    "method",
    "parameters",
    "model",
    "generation",
    "selection",
    "metrics",
    "subset",
    "study",
    "versions",
    "source",
]


def searched() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "demo-kvsmooth-trial-4",
        "method": "kvsmooth",
        "parameters": {"lambda_ref": 0.35, "queue_length": 9, "clip_width": 0.1, "start_layer": 2, "end_layer": 7},
        "model": {"family": "demo", "id": "demo", "revision": None, "layers": 8},
        "generation": {"prompt": "Describe.", "max_new_tokens": 512, "dtype": "float32"},
        "selection": {"rule": "lowest CHAIR_S", "on": "tune"},
        "metrics": {"tune": {"chair_s": 30.0, "f1": 61.5}, "holdout": None, "baseline": {"chair_s": 40.0, "f1": 60.0}},
        "subset": {"name": "tune", "sha256": "ab", "images": 100},
        "study": {"name": "demo-kvsmooth", "trial": 4},
        "versions": {"kvtune": "0.1.0"},
        "source": "search",
    }


@pytest.mark.parametrize(("name", "lambda_ref"), [("llava-1.5", 0.9), ("minigpt4", 0.5), ("instructblip", 0.7)])
def test_published_settings_are_the_papers(name: str, lambda_ref: float) -> None:
    preset = load_preset(name)
    assert preset.source == "paper"
    assert preset.method().parameters() == {
        "lambda_ref": lambda_ref,
        "queue_length": 15,
        "clip_width": 0.2,
        "start_layer": 3,
        "end_layer": 31,
        "adaptive": True,
        "target": "kv",
    }
    assert preset.method() == KVSmooth(lambda_ref=lambda_ref)  # the defaults are the paper's too
    assert preset.model.layers == 32
    assert preset.generation.prompt == "Please describe the image in detail."
    assert preset.generation.max_new_tokens == 512


def test_demo_preset_leaves_out_first_and_last_layer() -> None:
    preset = load_preset("demo")
    method = preset.method().parameters()
    assert (method["lambda_ref"], method["queue_length"], method["clip_width"]) == (0.7, 15, 0.2)
    assert (method["start_layer"], method["end_layer"]) == (1, preset.model.layers - 1)
    config = json.loads((demo_model_path() / "config.json").read_text())
    assert preset.model.layers == config["text_config"]["num_hidden_layers"]


@pytest.mark.parametrize("name", preset_names())
def test_shipped_presets_have_every_key_and_fit_their_model(name: str) -> None:
    preset = load_preset(name)
    assert list(preset.model_dump(by_alias=True)) == KEYS
    assert preset.name == name
    preset.method().check_layers(preset.model.layers)


def test_a_preset_is_saved_where_a_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Preset.model_validate(searched()).save("~/preset.json")
    assert load_preset("~/preset.json") == load_preset(tmp_path / "preset.json")


def test_saved_preset_reads_back_with_the_keys_of_the_design(tmp_path: Path) -> None:
    preset = Preset.model_validate(searched())
    path = tmp_path / "new" / "preset.json"
    preset.save(path)
    assert json.loads(path.read_text()) == searched()
    assert list(json.loads(path.read_text())) == KEYS
    assert load_preset(path) == preset
    assert load_preset(str(path)) == preset
    assert preset.method().parameters()["lambda_ref"] == 0.35


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambda": 0.3}, ["unknown key 'lambda'", "parameters"]),
        (
            {"model": {"family": "demo", "id": "demo", "revision": None, "layers": 8, "size": 7}},
            ["model.size", "layers"],
        ),
        ({"source": "hearsay"}, ["source"]),
        ({"generation": {"prompt": "x", "max_new_tokens": 0, "dtype": None}}, ["generation.max_new_tokens"]),
        ({"schema_version": 3}, ["schema_version 3", "reads 1 and 2", "update kvtune"]),
        ({"parameters": {"alpha": 0.2}}, ["kvsmooth: unknown parameter 'alpha'; there is lambda_ref"]),
        ({"parameters": {"lambda_ref": 2}}, ["lambda_ref must be a number from 0 to 1"]),
        ({"method": "pia"}, ["unknown method 'pia', did you mean 'pai'?"]),
        ({"method": "kvsmooth+kvsmooth"}, ["kvsmooth twice"]),
        ({"selection": {"rule": "x", "on": "guess"}}, ["selection.on"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(searched() | change))
    with pytest.raises(RequestError) as caught:
        load_preset(path)
    assert all(word in str(caught.value) for word in [*words, str(path)])


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "preset.json"
    path.write_text(json.dumps({name: value for name, value in searched().items() if name != key}))
    with pytest.raises(RequestError, match=key):
        load_preset(path)


def test_parameters_are_checked_when_they_are_used() -> None:
    wrong = searched() | {"parameters": {"lambda_ref": 0.3, "lamda": 1}}
    with pytest.raises(RequestError, match="lamda"):
        Preset.model_validate(wrong).method()
    with pytest.raises(RequestError, match="unknown method"):
        Preset.model_validate(searched() | {"method": "nosuch"}).method()


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RequestError, match=r"no preset 'minigpt5'.*demo, instructblip, llava-1.5, minigpt4"):
        load_preset("minigpt5")
    with pytest.raises(RequestError, match=r"/nowhere/p.json does not exist"):
        load_preset("/nowhere/p.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\x01"])
def test_a_file_that_is_no_preset(tmp_path: Path, text: str) -> None:
    path = tmp_path / "preset.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=str(path)):
        load_preset(path)


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match="cannot write"):
        Preset.model_validate(searched()).save(tmp_path / "file" / "preset.json")


def test_reading_a_preset_loads_no_torch() -> None:
    code = "import sys, kvtune; kvtune.load_preset('minigpt4'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
