"""Commands whose GPU is lost midway, on the demo: one line, exit code 1, and the same command goes on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import kvtune
from failing_device import FailingDevice, cuda_error

from kvtune.demo import demo_model_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (demo_model_path() / "model.safetensors").exists(),
        reason=f"the demo model's weights are not in {demo_model_path()}",
    ),
]

TOLD = "CUDA error: an illegal memory access was encountered; if the next one meets it too"


@pytest.fixture(scope="module")
def scenes(demo_scenes: Callable[[int], Path]) -> Path:
    """The hundred that a reproduction reports on, and four to choose the factor on."""
    return demo_scenes(104)


@pytest.fixture(scope="module")
def coco(demo_scenes: Callable[[int], Path]) -> Path:
    return demo_scenes(12)


def images(coco: Path) -> list[Path]:
    return sorted(coco.rglob("*.jpg"))


def lost_at(share: float, whole: int, *command: object) -> list[str]:
    """What a command says that loses its GPU after this share of its operations."""
    with FailingDevice(int(share * whole)):
        ran = kvtune(*command)
    said = ran.stderr.splitlines()
    assert ran.returncode == 1 and not ran.stdout and "Traceback" not in ran.stderr, ran.stderr
    assert said[-1].startswith("kvtune: ") and TOLD in said[-1], ran.stderr
    return said


def operations(*command: object) -> int:
    with FailingDevice() as device:
        assert kvtune(*command).returncode == 0
    return device.count


def test_captions_in_a_file(coco, tmp_path):
    """No image is to blame, so none is left out; what was written stays."""

    def command(out: str) -> tuple[object, ...]:
        return (
            *("caption", *images(coco), "--model", "demo", "--device", "cpu", "--lanes", "2"),
            *("--max-new-tokens", 20),
            *("--skip-broken", "--out", tmp_path / out),
        )

    whole = operations(*command("whole.jsonl"))
    before = 0
    for share in (0.0, 0.4, 0.3):
        said = lost_at(share, whole, *command("lost.jsonl"))
        assert not any("skipped" in line for line in said)
        lines = (tmp_path / "lost.jsonl").read_text().splitlines() if share else []
        assert before <= len(lines) < 12
        before = len(lines)
    assert before > 0
    assert kvtune(*command("lost.jsonl")).returncode == 0

    def written(name: str) -> list[str]:
        return sorted((tmp_path / name).read_text().splitlines())

    assert written("lost.jsonl") == written("whole.jsonl")
    assert json.loads((tmp_path / "lost.jsonl.about.json").read_text())["skipped"] == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize(
    "command",
    [
        ("caption", "IMAGE", "--model", "demo", "--max-new-tokens", "8"),
        ("caption", "IMAGE", "--model", "demo", "--max-new-tokens", "8", "--trace", "trace"),
        ("models", "check", "demo", "--max-new-tokens", "4"),
    ],
    ids=lambda command: " ".join(command[:1] + command[-1:]),
)
def test_what_is_shown(coco, tmp_path, monkeypatch, command, share):
    monkeypatch.chdir(tmp_path)
    words = [*(images(coco)[0] if word == "IMAGE" else word for word in command), "--device", "cpu"]
    lost_at(share, counted(tuple(words)), *words)


COUNTED: dict[tuple[object, ...], int] = {}


def counted(words: tuple[object, ...]) -> int:
    if words not in COUNTED:
        COUNTED[words] = operations(*words)
    return COUNTED[words]


def test_a_search(coco, tmp_path):
    """No trial is said to have failed."""
    counts = ("--images", 8, "--holdout-images", 2, "--trials", 2, "--parallel-trials", 2, "--max-new-tokens", 12)
    command = ("search", "--model", "demo", "--coco", coco, *counts, "--device", "cpu", "--json")
    whole = operations(*command, "--studies-dir", tmp_path / "whole")
    for share in (0.5, 0.9):
        lost_at(share, whole, *command, "--studies-dir", tmp_path / "lost")
    ran, right = (kvtune(*command, "--studies-dir", tmp_path / name) for name in ("lost", "whole"))
    assert ran.returncode == 0, ran.stderr
    found = [[(t["number"], t["state"], t["chair_s"]) for t in json.loads(r.stdout)["trials"]] for r in (ran, right)]
    assert found[0] == found[1] and {state for _, state, _ in found[0]} == {"complete"}


def test_a_reproduction(scenes, tmp_path):
    """No setting is said to have failed, and no caption is paid for twice."""

    def command(out: str) -> tuple[object, ...]:
        counts = ("--models", "demo", "--images", 2, "--coco", scenes, "--device", "cpu")
        return "reproduce", "table1", *counts, "--out", tmp_path / out, "--json"

    whole = operations(*command("whole"))
    paid: set[str] = set()
    for share in (0.5, 0.4):
        lost_at(share, whole, *command("lost"))
        written = {line for file in (tmp_path / "lost").rglob("*.jsonl") for line in file.read_text().splitlines()}
        assert paid <= written
        paid = written
    ran, right = (kvtune(*command(name)) for name in ("lost", "whole"))
    assert ran.returncode == 0, ran.stderr
    assert paid and json.loads(ran.stdout) == json.loads(right.stdout)


@pytest.mark.parametrize("error", [MemoryError(), cuda_error("out of memory"), cuda_error("invalid argument")])
def test_other_failures_of_the_machine_are_one_line(monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("kvtune.doctor.examine", fail)
    ran = kvtune("doctor")
    assert ran.returncode == 1 and len(ran.stderr.splitlines()) == 1, ran.stderr
