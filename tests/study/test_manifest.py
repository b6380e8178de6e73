"""The manifest, and what may not be mixed in one study."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_search import new_study

from kvtune.errors import RequestError
from kvtune.spaces import default_space
from kvtune.study.fingerprint import refuse_difference
from kvtune.study.manifest import load_manifest, versions


def test_it_reads_back(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    assert load_manifest(folder) == manifest
    data = json.loads(folder.manifest.read_text())
    assert data["format"] == "kvtune-study/1"
    assert data["reference_point"] is None
    assert data["fingerprint"]["space"]["parameters"]["lambda_ref"] == {
        "low": 0.0,
        "high": 1.0,
        "step": 0.05,
        "log": False,
    }


def test_the_same_fingerprint_goes_on(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    refuse_difference(folder, manifest.fingerprint, manifest.fingerprint.model_dump(mode="json"))
    refuse_difference(folder, manifest.fingerprint, {"seed": 0, "sampler": "random"})


CURES = {
    "seed": "--seed 0",
    "model": "--model fake",
    "revision": "no --revision",
    "prompt": "--prompt Describe.",
    "max_new_tokens": "--max-new-tokens 64",
    "subset": "--images, --subset and --seed as it was begun",
    "dtype": "--dtype float32",
    "sampler": "--sampler random",
    "parallel_trials": "--parallel-trials 4",
}


def test_images_are_told_in_words(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    words = {"subset": ("100 images of val2014", "500 images of val2014")}
    with pytest.raises(
        RequestError, match="begun with 100 images of val2014, but this command has 500 images"
    ) as caught:
        refuse_difference(folder, manifest.fingerprint, {"subset": "f" * 64}, words)
    assert "fff" not in str(caught.value)


def test_quantization_is_an_option_of_its_own(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    begun = manifest.fingerprint.model_copy(update={"dtype": "float16-4bit"})
    with pytest.raises(RequestError, match="give --dtype float16 --load-in-4bit, or another"):
        refuse_difference(folder, begun, {"dtype": "float16"})


def test_a_study_without_racing_says_so(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    begun = manifest.fingerprint.model_copy(update={"race_confidence": None})
    with pytest.raises(RequestError, match="give --no-race, or another --study name"):
        refuse_difference(folder, begun, {"race_confidence": 0.9})


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    with pytest.raises(RequestError) as caught:
        refuse_difference(folder, manifest.fingerprint, {"seed": 1, "sampler": "tpe", "max_new_tokens": 64})
    assert str(caught.value) == (
        "give --seed 0, --sampler random, or another --study name: study s was begun with "
        'seed 0, but this command has 1; sampler "random", but this command has "tpe"'
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "begun with seed 0, but this command has 1"),
        ({"model": "other"}, 'model "fake", but this command has "other"'),
        ({"revision": "abc"}, 'revision none, but this command has "abc"'),
        ({"prompt": "Look."}, 'prompt "Describe.", but'),
        ({"max_new_tokens": 512}, "max_new_tokens 64, but"),
        ({"subset": "f" * 64}, "subset"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"sampler": "tpe"}, 'sampler "random"'),
        ({"parallel_trials": 8}, "parallel_trials 4"),
    ],
)
def test_every_difference_is_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder, manifest = new_study(tmp_path / "s")
    now = manifest.fingerprint.model_dump(mode="json") | change
    with pytest.raises(RequestError, match=message) as caught:
        refuse_difference(folder, manifest.fingerprint, now)
    assert "study s was begun with" in str(caught.value)
    assert "another --study name" in str(caught.value)
    (field,) = change
    assert str(caught.value).startswith(f"give {CURES[field]}, or another --study name: study s was begun with ")


def test_a_difference_deep_in_the_space_is_named(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    space = default_space("kvsmooth", 8).fitted(8).model_dump(mode="json")
    space["parameters"]["clip_width"]["high"] = 0.4
    with pytest.raises(RequestError, match=r"space.parameters.clip_width.high 0.5, but this command has 0.4"):
        refuse_difference(folder, manifest.fingerprint, {"space": space})
    del space["parameters"]["clip_width"]
    with pytest.raises(RequestError, match=r"space.parameters.clip_width.low 0.0, but this command has none"):
        refuse_difference(folder, manifest.fingerprint, {"space": space})


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_manifest_says_what_to_do(tmp_path: Path, kept: int) -> None:
    folder, _ = new_study(tmp_path / "s")
    folder.manifest.write_bytes(folder.manifest.read_bytes()[:kept])
    with pytest.raises(RequestError, match=r"study\.json is not valid JSON: .*; restore the file from a copy$"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"layers": "many"}, "layers"),
        ({"format": "kvtune-study/9"}, "format"),
        ({"looks": [20, 10]}, "looks must rise between 0 and"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder, _ = new_study(tmp_path / "s")
    folder.manifest.write_text(json.dumps(json.loads(folder.manifest.read_text()) | change))
    with pytest.raises(RequestError, match=message):
        load_manifest(folder)


def test_versions_of_what_captions_depend_on() -> None:
    assert {"kvtune", "torch", "transformers", "optuna"} <= set(versions())
