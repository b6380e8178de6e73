"""A device's measured limits, and a clock that waits for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Device:
    """The device's measured limits: floating-point operations and copied bytes (read and written) a second."""

    name: str
    threads: int
    flops: float
    bandwidth: float


def measure_device(device: torch.device, dtype: torch.dtype) -> Device:
    """Time a large matrix product and a large copy, best of several."""
    size = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    block = torch.randn(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(block)
    product = min(seconds_of(lambda: torch.matmul(left, right), device) for _ in range(8))
    copy = min(seconds_of(lambda: target.copy_(block), device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Device(name, torch.get_num_threads(), 2 * size**3 / product, 2 * block.numel() * 4 / copy)


def timed(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds that ``run`` takes on ``device``, and what it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    return timed(run, device)[0]
