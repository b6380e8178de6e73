"""A search with --gpus-per-worker, from the option to the study, on cards that are pretended."""

import json

import pytest
import torch
from pretended_cards import PretendedCards

import kvtune
from kvtune.captioning import planning, prepared_ahead
from kvtune.coco import CocoFolder
from kvtune.demo import demo_coco
from kvtune.models import loading

pytestmark = pytest.mark.slow  # every operation is looked at

ASKED = {"model": "demo", "images": 2, "holdout_images": 2, "trials": 2, "parallel_trials": 2, "max_new_tokens": 12}


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs for whoever asks, of which tensors are on pretended cards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(loading, "resolve_devices", lambda device: [torch.device("cpu", int(n)) for n in device[5::7]])
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    # Threads of the host would not know of the cards.
    monkeypatch.setattr(prepared_ahead.PreparedAhead, "expect", lambda *given: None)


def lines(folder):
    return {path.name: sorted(path.read_text("utf-8").splitlines()) for path in folder.glob("*.jsonl")}


def test_a_study_and_captions_are_those_of_one_device(two_gpus, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with PretendedCards() as cards:
        kvtune.search(study="two", gpus_per_worker=2, dtype="float32", **ASKED)
        assert {(str(one), str(other)) for one, other in cards.copies} >= {("cpu:0", "cpu:1"), ("cpu:1", "cpu:0")}
        coco = CocoFolder(demo_coco())
        image = coco.image_paths(coco.image_ids("val2014")[:1])[0]
        (several,) = kvtune.caption([image], model="demo", gpus_per_worker=2, dtype="float32", max_new_tokens=12)
    assert json.loads((tmp_path / "studies/two/study.json").read_text())["device"] == "cpu:0,cpu:1"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    kvtune.search(study="one", device="cpu", dtype="float32", **ASKED)
    (alone,) = kvtune.caption([image], model="demo", device="cpu", dtype="float32", max_new_tokens=12)
    assert several.text == alone.text
    captions = lines(tmp_path / "studies/two/captions")
    assert captions.keys() == {"baseline.jsonl", "trial-0000.jsonl", "trial-0001.jsonl"}
    assert captions == lines(tmp_path / "studies/one/captions")
