"""What is measured on: the card, the versions of what runs, and how fast the card is at its best.

Prints one line of JSON: ``python -m kvtune.bench.engine.versions --device cuda``.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
from typing import Any

import torch

from kvtune.bench.engine.device import measure_device
from kvtune.bench.engine.subject import print_line
from kvtune.captioning.memory import free_memory
from kvtune.models.devices import resolve_device
from kvtune.package_versions import package_versions


def versions(device: torch.device) -> dict[str, Any]:
    """The device, its driver and free memory, its measured limits, and versions; JSON-ready."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    limits = measure_device(device, dtype)
    packages = ("torch", "triton", "transformers", "numpy", "optuna")
    installed = package_versions(*packages)
    return {
        "device": limits.name,
        "driver": driver_version() if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "free_bytes": free_memory(device),
        "dtype": str(dtype).removeprefix("torch."),
        "matmul_flops": limits.flops,
        "copy_bytes_per_second": limits.bandwidth,
        "python": platform.python_version(),
        **{package: installed.get(package) for package in packages},
    }


def driver_version() -> str | None:
    """Of the first NVIDIA card; None if nobody says."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    print_line(versions(resolve_device(parser.parse_args().device)))


if __name__ == "__main__":
    main()
