"""``kvtune reproduce`` with real models: the demo, killed and continued; small random ones of the paper's families."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import LAYERS, SAVERS
from forked import kvtune_forked
from small_coco import write_coco

from kvtune.cli.main import main
from kvtune.coco import OPERA500, Subset
from kvtune.demo import demo_model_path
from kvtune.study.caption_log import read_captions


@pytest.fixture(scope="module")
def scenes(demo_scenes: Callable[[int], Path]) -> Path:
    """The demo's first hundred scenes are reported on; a few of them, and a few others to choose the factor on."""
    return demo_scenes(104)


def options(table: str, scenes: Path, out: Path) -> list[str]:
    return ["reproduce", table, "--models", "demo", "--images", "2", "--coco", str(scenes), "--out", str(out), "--json"]


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.rglob("*.jsonl"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (demo_model_path() / "model.safetensors").exists(),
    reason=f"the demo model's weights are not in {demo_model_path()}",
)
def test_the_demo_killed_and_continued(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reproductions"
    process = kvtune_forked(*options("table1", scenes, out), out=tmp_path / "document")
    while process.poll() is None and lines(out) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "document").read_bytes() == b"" and lines(out) >= 5
    paid = {path: read_captions(path) for path in out.rglob("*.jsonl")}
    document, said = run(capsys, *options("table1", scenes, out))
    for path, captions in paid.items():
        now = read_captions(path)
        assert list(now)[: len(captions)] == list(captions) and captions.items() <= now.items()
    (model,) = document["models"]
    assert document["format"] == "kvtune-reproduction/1" and document["table"] == "table1"
    assert model["subset"]["name"] == "demo100" and not model["whole"] and not model["paper_model"]
    assert [setting["name"] for setting in model["settings"]] == ["opera", "baseline", "constant", "adaptive"]
    assert all(setting["reported"] is None for setting in model["settings"])
    assert model["settings"][3]["params"]["end_layer"] == 15
    assert json.loads((out / "demo" / "table1.json").read_text()) == document
    assert "demo: captions are kept in" in said and "captions: 26 of 26" in said
    # The other table only adds its two settings, and nothing is left to do for a third call, which needs no COCO.
    before = lines(out)
    (found,) = run(capsys, *options("table4", scenes, out))[0]["models"]
    assert lines(out) == before + 2 * 2 and len(found["settings"]) == 5
    assert run(capsys, *options("table4", tmp_path, out))[0]["models"] == [found]
    assert lines(out) == before + 2 * 2


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    """The document that a command prints in this process, and what it says beside."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return json.loads(out), err


def save_talker(family: str, folder: Path) -> None:
    """A small random model that comes to an end: some of its tokens end a text."""
    SAVERS[family](folder)
    path = folder / "generation_config.json"
    config = json.loads(path.read_text())
    vocabulary = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    path.write_text(json.dumps(config | {"eos_token_id": list(range(7, vocabulary, 20))}))


def test_the_papers_three_models_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small random models where the published ones would lie, and some of opera500's ids in a small COCO."""
    monkeypatch.setenv("KVTUNE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("KVTUNE_COCO", str(tmp_path / "coco"))
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path / "coco", "val2014", [*Subset.load(OPERA500).image_ids[:2], 700_001, 700_002, 700_003])
    for name in ("minigpt4", "instructblip"):
        save_talker(name, tmp_path / "models" / name)

    def kvtune(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["reproduce", *arguments, "--images", "2", "--device", "cpu"])
        return int(ended.value.code or 0), *capsys.readouterr()

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, out, err = kvtune("table1")
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert "weights of llava-1.5 are not on this machine; fetch them: hf download llava-hf/llava-1.5-7b-hf" in err
    assert not (tmp_path / "reproductions").exists()

    save_talker("llava-1.5", tmp_path / "models" / "llava-1.5")
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = kvtune("table1")
    assert code == 0, err
    out = " ".join(out.split())
    places = [out.index(f"KVSmooth, table 1 with {name}") for name in ("llava-1.5", "minigpt4", "instructblip")]
    assert places == sorted(places) and out.count("Nothing is reported for this model") == 3
    for name in ("llava-1.5", "minigpt4", "instructblip"):
        folder = tmp_path / "reproductions" / name
        (model,) = json.loads((folder / "table1.json").read_text())["models"]
        assert (model["family"], model["layers"], model["max_new_tokens"]) == (name, LAYERS, 512)
        assert model["settings"][3]["params"] | {"lambda_ref": 0} == model["settings"][2]["params"] | {
            "lambda_ref": 0,
            "adaptive": True,
        }
        texts = {
            path.stem: [line["caption"] for line in read_captions(path).values()]
            for path in (folder / "captions").glob("*.jsonl")
        }
        assert all(len(captions) == 2 for captions in texts.values())
        assert texts["baseline"] != texts["opera"], "another question"
        assert texts["baseline"] != texts["adaptive"], "smoothing changes what a model with random weights says"
        assert f"wrote reproductions/{name}/table1.md" in err
    # The same weights by their path are the same reproduction; all models are looked for before the first is begun.
    by_path = str(tmp_path / "models" / "llava-1.5")
    code, out, err = kvtune("table4", "--models", f"{by_path},minigpt4", "-m", "qwen2.5-vl")
    assert (code, out) == (2, "") and "weights of qwen2.5-vl are not on this machine" in err
    code, out, err = kvtune("table4", "-m", by_path)
    assert code == 0 and "attention output" in out, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table2"], "table2"),
        ([], "Missing argument 'TABLE'"),
        (["table1", "--models", "no-such-model"], "unknown model 'no-such-model'"),
        (["table1", "--models", "qwen2.5-vl"], "hf download"),
        (["table1", "--models", "demo,demo"], "demo and demo would both be kept"),
        (["table1", "--models", "demo", "--images", "101"], "--images must be from 1 to 100, the images of demo100"),
        (["table1", "--models", "demo", "--device", "cuda:77"], "--device cuda:77"),
        (["table1", "--models", "demo", "--coco", "no-coco"], "COCO folder no-coco does not exist"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and said in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
