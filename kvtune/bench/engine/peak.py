"""How much memory a piece of work held at its highest, by the allocator's own account."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kvtune.models import VisionLanguageModel


def measured_peak(vlm: VisionLanguageModel, run: Callable[[], Any]) -> int:
    """Most bytes of device memory that were held at once while ``run`` went, the model's weights included.

    On a GPU the CUDA allocator keeps the account. On a CPU nobody does, so PyTorch's profiler notes every allocation;
    that slows ``run`` down.
    """
    gc.collect()
    if vlm.device.type == "cuda":
        torch.cuda.synchronize(vlm.device)
        torch.cuda.reset_peak_memory_stats(vlm.device)
        run()
        torch.cuda.synchronize(vlm.device)
        return torch.cuda.max_memory_allocated(vlm.device)
    with quiet_profiler([torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    held = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest + sum(parameter.numel() * parameter.element_size() for parameter in vlm.hf_model.parameters())


def quiet_profiler(activities: Sequence[torch.profiler.ProfilerActivity], **more: Any) -> torch.profiler.profile:
    """PyTorch's profiler, which else writes on stderr that it begins and ends."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    return torch.profiler.profile(activities=activities, **more)
