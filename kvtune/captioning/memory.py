"""How large a grid fits into the device's memory, by calculation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

import torch

from kvtune.errors import RequestError
from kvtune.models import VisionLanguageModel

Lanes = int | Literal["auto"]

_MOST_ROWS = {"cpu": 256, "cuda": 1024}
"""Rows above which a step takes as much longer as it has more rows, and larger grids bring nothing."""

_PLANNED_TOKENS = 256
"""Caption length that the plan allows for; CHAIR captions run to some 100 tokens, and a rare long one makes it grow."""

_USABLE = 0.85
"""Share of the free memory that the grid may take; the rest is for activations of a prefill and for fragments."""


@dataclasses.dataclass(frozen=True)
class GridPlan:
    """A grid and what it takes.

    Attributes
    ----------
    groups, lanes
        Images on the grid, and captions decoded at once for each.
    weights, prefixes, suffixes
        Bytes of the model, of all prompts' keys and values, and of all captions' keys and values as planned.
    """

    groups: int
    lanes: int
    weights: int
    prefixes: int
    suffixes: int

    def __str__(self) -> str:
        return (
            f"{self.groups} images by {self.lanes} captions: weights {_megabytes(self.weights)}, "
            f"prompts {_megabytes(self.prefixes)}, captions {_megabytes(self.suffixes)}"
        )


def plan_grid(
    vlm: VisionLanguageModel, prompt_tokens: int, max_new_tokens: int, requests: int, images: int, lanes: Lanes = "auto"
) -> GridPlan:
    """The grid for a stream in which ``requests`` are about ``images``.

    An image gets half as many lanes as it has requests: the second half starts as the first finishes, so that lanes
    seldom stand idle while an image's longest caption ends.

    Parameters
    ----------
    prompt_tokens
        Length of a prompt, visual tokens included.
    lanes
        Captions decoded at once over the whole grid; ``auto`` takes what fits into the free memory.
    """
    if lanes != "auto" and lanes < 1:
        raise RequestError(f"lanes must be auto or at least 1, not {lanes}")
    position = bytes_per_position(vlm)
    slots = min(max_new_tokens, _PLANNED_TOKENS) + 1
    most = _MOST_ROWS.get(vlm.device.type, _MOST_ROWS["cpu"]) if lanes == "auto" else lanes
    per_group = min(most, -(-requests // (2 * images)))
    groups = max(1, min(most // per_group, -(-requests // per_group)))
    if lanes == "auto":
        group_bytes = prompt_tokens * position + per_group * (slots * position + _step_bytes(vlm))
        groups = max(1, min(groups, int(_USABLE * free_memory(vlm.device) / group_bytes)))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in vlm.hf_model.parameters())
    return GridPlan(
        groups, per_group, weights, groups * prompt_tokens * position, groups * per_group * slots * position
    )


def bytes_per_position(vlm: VisionLanguageModel) -> int:
    """Bytes that one token's keys and values take in all layers."""
    config = vlm.decoder.config
    return 2 * vlm.n_layers * config.num_key_value_heads * vlm.head_dim * vlm.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that may still be allocated on ``device``."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_host_memory()


def free_host_memory() -> int:
    """Bytes of host memory that may still be allocated; what only caches files counts as free where that is known."""
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no room for a tensor; PyTorch has an exception of its own for that on a GPU alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _step_bytes(vlm: VisionLanguageModel) -> int:
    """Bytes a row's activations take at the peak of a decode step: its logits, and the widest layer's."""
    config = vlm.decoder.config
    return config.vocab_size * vlm.dtype.itemsize + 4 * (config.intermediate_size + config.hidden_size) * 4


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
