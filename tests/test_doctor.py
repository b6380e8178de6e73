"""Each check finds what is wrong and names a cure; what works is not called broken."""

import importlib.metadata
import json
import os
import subprocess
import sys
from email.message import Message
from itertools import islice
from pathlib import Path

import pytest
from small_coco import write_coco

from kvtune import doctor
from kvtune.coco import Subset
from kvtune.demo import demo_model_path


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "kvtune.cli.main", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def test_command(tmp_path):
    """On a machine that passes these tests nothing fails, but for the demo's weights where they are not built."""
    folders = {"KVTUNE_COCO": "no", "KVTUNE_CACHE": "cache", "HF_HUB_CACHE": "."}
    environment = {name: str(tmp_path / folder) for name, folder in folders.items()}
    got = run("--json", "--studies-dir", tmp_path / "studies", **environment)
    report = json.loads(got.stdout)
    cache = next(check["found"] for check in report["checks"] if check["name"] == "folder cache")
    assert cache.startswith(f"{tmp_path / 'cache'}, ")
    states = {check["name"]: check["state"] for check in report["checks"]}
    failed = [name for name, state in states.items() if state == "failed"]
    assert failed == ([] if (demo_model_path() / "model.safetensors").is_file() else ["model demo"])
    assert report["ok"] == (not failed)
    assert got.returncode == (1 if failed else 0)
    assert {"Python", "torch", "transformers", "memory", "folder studies", "folder cache", "COCO"} <= set(states)
    assert states["COCO"] == "warning"
    assert any(name.startswith("device") for name in states)
    for check in report["checks"]:
        assert set(check) == {"name", "state", "found", "cure"}
        assert check["found"]
        assert check["cure"] or check["state"] in ("ok", "info")
    assert not (tmp_path / "studies").exists()


def test_broken_torch_and_folder(tmp_path):
    """A torch that does not import is a line with a cure, and the other checks go on."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object')")
    (tmp_path / "file").write_text("")
    got = run(
        "--studies-dir", tmp_path / "file" / "studies", PYTHONPATH=str(tmp_path), KVTUNE_COCO=str(tmp_path / "no")
    )
    lines = got.stdout.splitlines()
    assert got.returncode == 1
    assert "Traceback" not in got.stderr
    place = lines.index("failed  device: torch cannot be imported: libcudart.so.13: cannot open shared object")
    assert lines[place + 1] == "        -> install torch anew (pytorch.org)"
    place = lines.index(f"failed  folder studies: {tmp_path}/file/studies cannot be written: Not a directory")
    assert "--studies-dir" in lines[place + 1]
    assert any(line.startswith("ok      folder cache") for line in lines)
    assert lines[-1].endswith("checks failed")


@pytest.fixture
def metadata(monkeypatch):
    """kvtune's requirements and the installed versions, as a test writes them."""

    def pretend(requires: list[str], versions: dict[str, str], extras: tuple[str, ...] = (), python: str = ">=3.11"):
        message = Message()
        message["Requires-Python"] = python
        for extra in extras:
            message["Provides-Extra"] = extra

        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
        monkeypatch.setattr(importlib.metadata, "metadata", lambda name: message)
        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


def test_source_that_is_not_installed(metadata, tmp_path):
    metadata([], {})
    first, second = islice(doctor.examine(tmp_path, tmp_path), 2)
    assert (first.state, first.cure) == ("failed", f"pip install -e {Path(doctor.__file__).parent.parent}")
    assert second.name.startswith("device")


def test_package_versions(metadata):
    metadata(
        ["torch>=2.7,<2.14", "optuna>=5,<6", "typer>=0.20", "tomli>=2; python_version < '3.0'"],
        {"torch": "2.13.0+cu130", "optuna": "4.6.0"},
    )
    torch, optuna, typer = doctor.check_packages()
    assert (torch.state, torch.found, torch.cure) == ("ok", "2.13.0+cu130", "")
    assert (optuna.state, optuna.cure) == ("failed", "pip install 'optuna<6,>=5'")
    assert optuna.found == "4.6.0, needed is <6,>=5"
    assert (typer.state, typer.found, typer.cure) == ("failed", "not installed", "pip install 'typer>=0.20'")


def test_extras(metadata):
    metadata(
        ["rich>=14", "pytest>=8; extra == 'test'", "pyarrow>=15; extra == 'tables'"],
        {"rich": "15", "pytest": "9.0"},
        extras=("test", "tables"),
    )
    test, tables = doctor.check_extras()
    assert (test.name, test.state) == ("extra test", "ok")
    assert (tables.state, tables.found, tables.cure) == (
        "info",
        "not installed: pyarrow",
        "pip install 'kvtune[tables]'",
    )


def test_python_version(metadata):
    metadata([], {}, python=">=3.11")
    assert doctor.check_python().state == "ok"
    metadata([], {}, python=">=4.2")
    check = doctor.check_python()
    assert (check.state, check.cure) == ("failed", "make an environment with Python >=4.2")


def test_coco(tmp_path):
    missing = doctor.check_coco(tmp_path / "no")
    assert missing.state == "warning"
    assert f"kvtune data download --to {tmp_path}/no" in missing.cure
    assert f"{tmp_path}/a; b does not exist" in doctor.check_coco(tmp_path / "a; b").found
    (tmp_path / "empty").mkdir()
    assert "no COCO annotations" in doctor.check_coco(tmp_path / "empty").found

    some = write_coco(tmp_path / "some", "val2014", range(1, 5))
    check = doctor.check_coco(some)
    assert (check.state, check.cure) == ("info", f"kvtune data download --to {some} --subset opera500")
    assert check.found == f"{some}: annotations of val2014; 0 of 500 images of opera500"
    path = some / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text()[:-20])
    check = doctor.check_coco(some)
    assert (check.state, check.found) == ("warning", f"{some}: missing or cut off: instances_val2014.json")
    assert check.cure == f"kvtune data download --to {some} --source val2014"

    whole = write_coco(tmp_path / "whole", "val2014", Subset.load("opera500").image_ids)
    assert doctor.check_coco(whole).state == "ok"


def test_writable(tmp_path):
    check = doctor.check_folder("studies", tmp_path / "a" / "b", "--studies-dir")
    assert check.state == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    check = doctor.check_folder("studies", tmp_path / "file", "--studies-dir")
    assert check.state == "failed"
    assert "--studies-dir" in check.cure


def test_models(tmp_path, monkeypatch):
    monkeypatch.setenv("KVTUNE_MODELS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    demo, models = doctor.check_models()
    assert (demo.name, demo.state) == ("model demo", "ok")
    assert (models.state, models.cure) == ("warning", "see kvtune models for the command that gets each")
    assert models.found == f"none but the demo, neither in {tmp_path} nor in the Hub cache"

    # MiniGPT-4 as convert writes it, and another that somebody began to copy.
    for name in ("minigpt4", "llava-1.5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "minigpt4" / "model.safetensors").write_bytes(b"weights")
    _, llava, models = doctor.check_models()
    assert (llava.name, llava.state) == ("model llava-1.5", "warning")
    assert llava.found == f"{tmp_path}/llava-1.5: 1 of 1 weight files are missing: model.safetensors"
    assert llava.cure.startswith("hf download llava-hf/llava-1.5-7b-hf")
    assert (models.state, models.found) == ("ok", f"minigpt4 ({tmp_path}/minigpt4)")


def test_gpu_that_torch_does_not_see(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [check.state for check in doctor.check_torch()] == ["ok"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (check,) = doctor.check_torch()
    assert check.state == "warning"
    assert "sees no GPU: Torch not compiled with CUDA enabled" in check.found or torch.version.cuda
    assert check.cure.startswith("install the torch build")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (check,) = doctor.check_torch()
    assert check.found.endswith(", with CUDA_VISIBLE_DEVICES=-1")
    assert check.cure.startswith("unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("says", "cure"),
    [
        ("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", "fabric manager"),
        (
            "The NVIDIA driver on your system is too old (found version 12040). CUDA ...",
            "update the",
        ),
    ],
)
def test_why_torch_sees_no_gpu(tmp_path, monkeypatch, says, cure):
    torch = pytest.importorskip("torch")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def fail():
        raise RuntimeError(says)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", fail)
    (check,) = doctor.check_torch()
    assert check.state == "warning" and check.found.endswith(f"sees no GPU: {says}") and cure in check.cure


@pytest.mark.parametrize(
    ("says", "cure"),
    [
        ("no kernel image is available for execution on the device", "install the torch build"),
        ("CUDA-capable device(s) is/are busy or unavailable", "another process has it for itself"),
        ("out of memory", "other processes have all of its memory"),
        ("uncorrectable ECC error encountered", "take another"),
        ("invalid argument", "install the torch build"),
    ],
)
@pytest.mark.parametrize("asked", ["get_device_name", "mem_get_info"])
def test_gpu_that_does_not_compute(monkeypatch, says, cure, asked):
    torch = pytest.importorskip("torch")
    failing_device = pytest.importorskip("failing_device")
    played = {"is_available": True, "device_count": 2, "get_device_name": "Old GPU", "mem_get_info": (2**30, 2**31)}
    for name, value in played.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch, "ones", lambda size, device: torch.zeros(size))

    def fail(index):
        raise failing_device.cuda_error(says)

    monkeypatch.setattr(torch.cuda, asked, fail)
    *checks, kernels = doctor.check_torch()
    assert kernels.name == "kernels" and [check.name for check in checks] == ["device cuda:0", "device cuda:1"]
    for check in checks:
        name = "a GPU" if asked == "get_device_name" else "Old GPU"
        assert check.state == "warning" and check.found == f"{name} does not compute: CUDA error: {says}"
        assert cure in check.cure


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "DEMO_MEMORY", 2**60)
    check = doctor.check_memory()
    assert check.state == "info" or (check.state == "warning" and "close other programs" in check.cure)
