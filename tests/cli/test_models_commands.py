"""``kvtune models``: the list, one checked, MiniGPT-4 made and then found by its name."""

import json

import minigpt4_files
import numpy as np
import pytest
from checkpoints import save_llava_next
from minigpt4_files import write_files
from PIL import Image

from kvtune.cli.main import main
from kvtune.models.minigpt4 import convert
from kvtune.models.published import MODELS


@pytest.fixture(autouse=True)
def models_folder(monkeypatch, tmp_path):
    folder = tmp_path / "models"
    monkeypatch.setenv("KVTUNE_MODELS", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def run(capsys):
    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["models", *map(str, arguments)])
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def test_the_list_says_what_is_here_and_how_to_get_the_rest(run, models_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    save_llava_next(models_folder / "llava-next")
    (models_folder / "llava-1.5").mkdir()
    (models_folder / "llava-1.5" / "config.json").write_text("{}")
    code, out, _ = run()
    assert code == 0
    for name in MODELS:
        assert name in out
    for line in (
        f"llava-next is in {models_folder / 'llava-next'}",
        f"llava-1.5: {models_folder / 'llava-1.5'}: 1 of 1 weight files are missing: model.safetensors",
        *(f"get {name}: {MODELS[name].command}" for name in ("qwen2.5-vl", "minigpt4", "llava-1.5-13b")),
    ):
        assert line in out.splitlines()
    code, out, _ = run("--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == list(MODELS)
    assert rows["llava-next"]["state"] == "here" and rows["llava-1.5"]["state"] == "incomplete"
    assert rows["minigpt4"]["state"] == "missing" and rows["minigpt4"]["published_preset"] == "minigpt4"
    assert rows["llava-1.5-13b"]["gpu_gib"] == 24.9 and rows["llava-1.5-13b"]["hub_id"] == "llava-hf/llava-1.5-13b-hf"


def test_a_damaged_index_does_not_hide_the_other_models(run, models_folder):
    (models_folder / "minigpt4").mkdir(parents=True)
    (models_folder / "minigpt4" / "model.safetensors.index.json").write_text('{"weight')
    code, out, _ = run("--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and rows["minigpt4"]["state"] == "incomplete" and rows["demo"]["state"] == "here"
    assert "index.json is damaged" in rows["minigpt4"]["problem"]


def test_a_model_is_checked_on_an_image(run, tmp_path):
    folder = save_llava_next(tmp_path / "my-fine-tune")
    image = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(image)
    code, out, _ = run("check", folder, "--image", image, "--max-new-tokens", 5, "--json", "--prompt", "cat?")
    checked = json.loads(out)
    assert code == 0
    assert (checked["name"], checked["family"], checked["id"]) == ("my-fine-tune", "llava-next", str(folder))
    assert (checked["layers"], checked["heads"], checked["dtype"], checked["device"]) == (3, 4, "float32", "cpu")
    assert checked["prompt"] == "cat?" and checked["tokens"] <= 5 and checked["weights_gib"] > 0
    [[first, end]] = checked["visual_ranges"]
    assert end - first == checked["visual_tokens"] > 16 and end < checked["prompt_tokens"]
    code, out, _ = run("check", folder, "--image", image, "--max-new-tokens", 5)
    assert code == 0 and f"positions {first} to {end - 1}" in out and "MiB of weights" in out
    assert checked["proven"] is True and {proof["image"] for proof in checked["proofs"]} == {0}
    assert "verdict       proven: " in out and "line" not in checked["refused"]


def test_random_weights_stand_in_for_weights_that_are_not_here(run, tmp_path):
    folder, drawn = save_llava_next(tmp_path / "model"), tmp_path / "tokens.png"
    (folder / "model.safetensors").unlink()
    code, out, err = run("check", folder, "--max-new-tokens", 2)
    assert code == 2 and "weight files are missing" in err
    code, out, _ = run("check", folder, "--max-new-tokens", 2, "--random-weights", "--png", drawn)
    assert code == 0 and "model (random weights) (llava-next)" in out and "proven: " in out
    assert Image.open(drawn).size == (768, 768)
    code, _, err = run("check", folder, "--random-weights", "--png", tmp_path / "no" / "where.png")
    assert code == 2 and "cannot be written as a picture" in err and "Traceback" not in err
    code, _, err = run("check", folder, "--random-weights", "--revision", "main")
    assert code == 2 and "leave the revision out" in err


def test_without_an_image_a_scene_of_the_demo_is_captioned(run, tmp_path):
    code, out, _ = run("check", save_llava_next(tmp_path / "model"), "--max-new-tokens", 2)
    assert code == 0 and "caption" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "llava"], "unknown model 'llava'"),
        (["check", "minigpt4"], "make it with: kvtune models convert minigpt4"),
        (["check", "demo", "--load-in-4bit", "--load-in-8bit"], "exclude each other"),
        (["check", "demo", "--image", "nowhere.jpg"], "image nowhere.jpg cannot be read"),
        (["check", "demo", "--revision", "main"], "leave the revision out"),
        (["convert", "llava", "--vicuna", "a", "--eva", "b", "--qformer", "c", "--checkpoint", "d"], "minigpt4"),
        (["convert", "minigpt4", "--vicuna", "a", "--eva", "b", "--qformer", "c"], "--checkpoint"),
        (
            ["convert", "minigpt4", "--vicuna", "a", "--eva", "b", "--qformer", "c", "--checkpoint", "d"],
            "--vicuna a is no",
        ),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(run, arguments, said):
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert said in err.splitlines()[-1] and "Traceback" not in err


def test_minigpt4_is_made_and_then_found_by_its_name(run, models_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "VISION", minigpt4_files.VISION)
    monkeypatch.setattr(convert, "QFORMER", minigpt4_files.QFORMER)
    options = [part for key, path in write_files(tmp_path / "files").items() for part in (f"--{key}", path)]
    code, out, err = run("convert", "minigpt4", *options)
    assert code == 0 and "try kvtune models check minigpt4" in out and "checking what was written" in err
    code, out, _ = run("check", "minigpt4", "--json", "--max-new-tokens", 4)
    checked = json.loads(out)
    assert code == 0 and checked["visual_tokens"] == 32 and checked["family"] == "minigpt4"
    assert json.loads(run("--json")[1])[3]["state"] == "here"
    code, out, err = run("convert", "minigpt4", *options)
    assert code == 2 and "is there already" in err
    code, out, err = run("convert", "minigpt4", *options, "--out", tmp_path / "elsewhere", "--json")
    assert code == 0 and json.loads(out)["out"] == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["search", "--model", "llava-1.5"], ["hf download llava-hf/llava-1.5-7b-hf", "data download --to"]),
        (["search", "--model", "minigpt4"], ["kvtune models convert minigpt4", "kvtune data download --to"]),
        (
            ["reproduce", "table1"],
            [*(MODELS[name].command for name in ("llava-1.5", "minigpt4", "instructblip")), "--subset opera500"],
        ),
    ],
)
def test_weights_and_images_that_are_missing_are_named_together(words, commands, models_folder, monkeypatch, capsys):
    monkeypatch.setenv("KVTUNE_COCO", str(models_folder / "no-coco"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(models_folder / "hub"))
    monkeypatch.chdir(models_folder.parent)
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown, error = capsys.readouterr()
    assert (ended.value.code, shown, error.count("\n")) == (2, "", 1)
    for command in commands:
        assert error.count(command) == 1
