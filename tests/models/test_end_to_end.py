"""Every family from a folder to a preset at work: search, export, caption, generate()."""

import json

import pytest
import torch
from checkpoints import SAVERS
from newer_checkpoints import NEWER, packages_for_videos_stood_in_for
from PIL import Image

from kvtune import load_preset
from kvtune.cli.main import main
from kvtune.demo.coco import FIRST_ID, write_coco
from kvtune.models import load_model

NAMED = {"internvl": "internvl3.5", "llava_onevision": "llava-onevision", "smolvlm": "smolvlm2"}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Eight scenes in COCO's layout."""
    root = tmp_path_factory.mktemp("coco")
    write_coco(root, range(FIRST_ID, FIRST_ID + 8), seed=0)
    return root


def kvtune(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    return said.out


@pytest.fixture(autouse=True)
def packages_for_videos():
    with packages_for_videos_stood_in_for():
        yield


@pytest.mark.parametrize("name", [*SAVERS, *(pytest.param(name, marks=pytest.mark.slow) for name in NEWER)])
def test_search_export_caption_and_generate(name, coco, checkpoint, tmp_path, capsys):
    folder = checkpoint(name) if name in SAVERS else NEWER[name](tmp_path / "model")
    preset = tmp_path / "preset.json"
    studies = ("--studies-dir", tmp_path / "studies")
    kvtune(
        capsys, "search", "--model", folder, "--coco", coco, "--trials", 2, "--images", 4, "--holdout-images", 4,
        "--max-new-tokens", 6, "--study", name, *studies, "--device", "cpu",
    )  # fmt: skip
    kvtune(capsys, "export", name, "--out", preset, "--select", "min-chair", *studies)
    stored = json.loads(preset.read_text())
    assert stored["model"]["family"] == NAMED.get(name, name) and stored["model"]["layers"] == 3
    assert stored["model"]["id"] == str(folder) and stored["generation"]["dtype"] == "float32"

    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((50, 40)).save(picture)
    captioned = json.loads(
        kvtune(capsys, "caption", picture, "--model", folder, "--preset", preset, "--json", "--max-new-tokens", 6)
    )
    assert captioned["model"] == folder.name

    vlm = load_model(folder, device="cpu")
    inputs = vlm.prepare([Image.open(picture)], stored["generation"]["prompt"])
    with load_preset(preset).method()(vlm.hf_model), torch.no_grad():
        output = vlm.hf_model.generate(**inputs, max_new_tokens=6)
    written = vlm.decode(output[0, inputs["input_ids"].shape[1] :].tolist())
    assert written == captioned["images"][0]["captions"]["preset"]["caption"]
