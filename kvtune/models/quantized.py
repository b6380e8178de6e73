"""Checkpoints whose weights are quantized already: how, whether they stay so, and that they can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvtune.errors import RequestError
from kvtune.models.hub import weight_files

_FP8_FROM = (8, 9)
"""The compute capability from which transformers leaves FP8 weights as they are."""


def stored_quantization(config: Any) -> str | None:
    """How a checkpoint's weights are quantized: ``4bit`` or ``8bit`` by bitsandbytes, else the name of the method."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    bits = next((bits for bits in ("4bit", "8bit") if settings.get(f"load_in_{bits}")), None)
    return bits or str(settings.get("quant_method"))


def check_not_twice(source: str, config: Any, asked: str | None) -> None:
    """Refuse to quantize anew what is quantized in another way; transformers would leave it as it is in silence."""
    stored = stored_quantization(config)
    if asked is not None and stored not in (None, asked):
        raise RequestError(f"{source} is quantized already ({stored}); leave --load-in-{asked} out")


def bytes_as_stored(folder: Path, config: Any, target: torch.device) -> int | None:
    """Bytes of quantized weights that take on a GPU what they take in their files.

    None where there are no such: transformers unpacks compressed-tensors in the first pass, and FP8 on older GPUs.
    """
    kind = stored_quantization(config)
    if kind in (None, "compressed-tensors") or target.type != "cuda":
        return None
    if kind == "fp8" and torch.cuda.get_device_capability(target) < _FP8_FROM:
        return None
    return sum(path.stat().st_size for path in weight_files(folder))
