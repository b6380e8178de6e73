"""The six commands that write captions: with two workers they write what they write without."""

import json
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")

from thread_workers import ThreadBackend

from kvtune.cli.main import main
from kvtune.coco import CocoFolder
from kvtune.demo import demo_coco

pytestmark = pytest.mark.slow  # every command captions twice

SIZES = ("--images", 4, "--holdout-images", 2, "--max-new-tokens", 16)
SEARCH = ("search", "--model", "demo", *SIZES, "--trials", 3, "--parallel-trials", 3, "--study", "one")
COMMANDS = {
    "search": SEARCH,
    "validate": ("validate", "one"),
    "sensitivity": ("sensitivity", "one", "--select", "trial:0", "--points", 2, "--parameter", "lambda_ref"),
    "tournament": (
        *("tournament", "--model", "demo", *SIZES, "--methods", "kvsmooth,pai"),
        *("--trials", 2, "--parallel-trials", 2, "--name", "cup"),
    ),
    "reproduce": ("reproduce", "table4", "--models", "demo", "--images", 2),
    "caption": ("caption", "photos", "--model", "demo", "--out", "captions.jsonl", "--max-new-tokens", 16),
    "caption, shown": ("caption", "photos", "--model", "demo", "--max-new-tokens", 16),
}


def printed(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return json.loads(out)


def written(folder: Path):
    """Every file of captions, in the order of images, and what came of trials."""
    files = {}
    for path in sorted(folder.rglob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        files[str(path.relative_to(folder))] = sorted(lines, key=lambda line: str(line.get("image_id", "")))
    return files


def same(document):
    """What a command prints, without what tells of this run alone."""
    if isinstance(document, dict):
        own = ("device", "seconds", "images_per_second", "created", "id", "study_id", "updated", "workers")
        return {name: same(value) for name, value in document.items() if name not in own}
    return [same(each) for each in document] if isinstance(document, list) else document


@pytest.fixture
def places(tmp_path):
    """Two folders to run commands in, with photographs of the same relative names."""
    coco = CocoFolder(demo_coco())
    for name in ("alone", "workers"):
        (tmp_path / name / "photos").mkdir(parents=True)
        for image in coco.image_ids("val2014")[:3]:
            (tmp_path / name / "photos" / coco.image_paths([image])[0].name).symlink_to(coco.image_paths([image])[0])
    return tmp_path / "alone", tmp_path / "workers"


def test_every_command_writes_with_two_workers_what_it_writes_alone(places, monkeypatch, capsys):
    monkeypatch.setattr("kvtune.captioning.cluster.ray_backend.RayBackend", ThreadBackend)
    monkeypatch.setattr(ThreadBackend, "opened", [])
    alone, workers = places
    for number, (name, words) in enumerate(COMMANDS.items(), 1):
        told = []
        for place, how in ((alone, ()), (workers, ("--workers", 2))):
            monkeypatch.chdir(place)
            told.append(same(printed(capsys, (*words, "--device", "cpu", *how))))
        assert told[0] == told[1], name
        assert len(ThreadBackend.opened) == number, f"{name}: workers wrote"
        assert all(len(backend.workers) == 2 for backend in ThreadBackend.opened)
        assert written(alone) == written(workers), name
    overview = {each["study"]: each["workers"] for each in printed(capsys, ("studies",))}
    assert [each["device"] for each in overview["one"]] == ["cpu", "cpu"]
    assert sum(each["captions"] for each in overview["one"]) >= 4 * 4
    assert overview.keys() == {"one", "cup-kvsmooth", "cup-pai"} and all(overview.values())
