"""The whole line with the demo model: killed, continued, exported, applied."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import kvtune
from forked import kvtune_forked

from kvtune.analysis.summarize import summarize
from kvtune.demo import demo_model_path
from kvtune.study.caption_log import captions_of, read_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (demo_model_path() / "model.safetensors").exists(),
        reason=f"the demo model's weights are not in {demo_model_path()}",
    ),
]

TRIALS = 5

SPACE = """
method: sparc
parameters:
  alpha: {low: 1.15, high: 1.5, step: 0.35}
  beta: {low: 0.1, high: 0.6, step: 0.5}
  tau: {low: 3, high: 4, step: 0.5}
fixed: {layer: 7}
"""
"""A space of good and bad settings, so that few trials of few images have some that are raced out."""


@pytest.fixture(scope="module")
def coco(demo_scenes: Callable[[int], Path]) -> Path:
    return demo_scenes(30)


def command(coco: Path, studies: Path) -> list[str]:
    counts = ["--images", "24", "--holdout-images", "4", "--trials", str(TRIALS), "--parallel-trials", "2"]
    data = ["--coco", str(coco), "--studies-dir", str(studies), "--max-new-tokens", "80"]
    space = coco.parent / "space.yaml"
    space.write_text(SPACE)
    how = ["--sampler", "random", "--seed", "0", "--space", str(space), "--race-confidence", "0.9"]
    return ["search", "--model", "demo", "--method", "sparc", *counts, *data, *how, "--json"]


@pytest.fixture(scope="module")
def undisturbed(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    studies = tmp_path_factory.mktemp("undisturbed")
    ran = kvtune(*command(coco, studies))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["study"] == "demo-sparc"
    return StudyFolder(studies / "demo-sparc")


def found(folder: StudyFolder) -> tuple[Any, ...]:
    summary = summarize(folder)
    study = optuna.load_study(study_name="demo-sparc", storage=f"sqlite:///{folder.database}")
    trials = [(trial.number, trial.params, *(trial.point or ()), trial.state) for trial in summary.trials]
    manifest, ledger = load_manifest(folder), Ledger(folder.ledger)
    captions = [
        captions_of(folder.trial_captions(trial.number), manifest.judged_images(trial))
        for trial in [ledger.baseline, *ledger.trials]
    ]
    return trials, summary.front, summary.reference_point, captions, [trial.values for trial in study.trials]


def test_a_trial_is_raced_out(undisturbed: StudyFolder) -> None:
    raced = [trial for trial in summarize(undisturbed).trials if trial.state == "raced"]
    assert raced and all(trial.images == 20 for trial in raced)
    assert all(set(trial.intervals) >= {"chair_s", "f1"} and trial.raced_out_by is not None for trial in raced)


def test_killed_and_continued_with_other_lanes(coco: Path, undisturbed: StudyFolder, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "demo-sparc")
    process = kvtune_forked(*command(coco, tmp_path), "--lanes", 31)
    while process.poll() is None and written(folder) < 40:  # the baseline is done, a trial is not
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    last = kvtune(*command(coco, tmp_path))
    assert last.returncode == 0, last.stderr
    assert found(folder) == found(undisturbed)


def written(folder: StudyFolder) -> int:
    """Lines of captions and trials, as a clock that runs with the work."""
    return sum(path.read_bytes().count(b"\n") for path in folder.path.glob("**/*.jsonl"))


def test_the_exported_preset_gives_the_captions_of_its_trial(
    coco: Path, undisturbed: StudyFolder, tmp_path: Path
) -> None:
    from kvtune import load_preset
    from kvtune.coco import load_image
    from kvtune.models import load_model

    path = tmp_path / "preset.json"
    assert kvtune("export", undisturbed.path, "--out", path, "--select", "min-chair").returncode == 0
    preset = load_preset(path)
    assert preset.study is not None
    vlm = load_model("demo", device="cpu", dtype="float32")
    for image_id, line in list(read_captions(undisturbed.trial_captions(preset.study.trial)).items())[:4]:
        image = load_image(coco / "val2014" / f"COCO_val2014_{image_id:012d}.jpg")
        inputs = vlm.prepare([image], prompt=preset.generation.prompt)
        with preset.method()(vlm.hf_model):
            output = vlm.hf_model.generate(**inputs, max_new_tokens=preset.generation.max_new_tokens)
        tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
        ends = [index for index, token in enumerate(tokens) if token in vlm.eos_token_ids]
        assert vlm.decode(tokens[: ends[0]] if ends else tokens) == line["caption"]
