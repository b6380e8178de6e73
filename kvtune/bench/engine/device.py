"""A device's measured limits, and a clock that waits for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from kvtune.bench.engine.fitting import fitting

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Device:
    """The device's measured limits: floating-point operations and copied bytes (read and written) a second."""

    name: str
    threads: int
    flops: float
    bandwidth: float


def measure_device(device: torch.device, dtype: torch.dtype) -> Device:
    """Time a large matrix product and a large copy, best of several; smaller ones where there is no room for them."""
    on_gpu = device.type == "cuda"

    def product(size: int) -> float:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / min(seconds_of(lambda: torch.matmul(left, right), device) for _ in range(8))

    def copy(size: int) -> float:
        block = torch.randn(size, device=device)
        target = torch.empty_like(block)
        return 2 * block.nbytes / min(seconds_of(lambda: target.copy_(block), device) for _ in range(8))

    _, flops = fitting(product, 8192 if on_gpu else 512)
    _, bandwidth = fitting(copy, 2**28 if on_gpu else 2**24)
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    return Device(name, torch.get_num_threads(), flops, bandwidth)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what was launched; of a processor there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds that ``run`` takes on ``device``, and what it returns."""
    wait_for(device)
    start = time.perf_counter()
    result = run()
    wait_for(device)
    return time.perf_counter() - start, result


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    return timed(run, device)[0]


def mark(device: torch.device) -> Any:
    """A moment of the device: on a GPU, when it has done what the host has launched by now."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(before: Any, after: Any) -> float:
    """Seconds between two of :func:`mark`; a GPU must have come to the second."""
    return float(after - before if isinstance(after, float) else before.elapsed_time(after) / 1e3)
