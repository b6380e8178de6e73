"""Checkpoints whose weights are quantized already: how, whether they stay so, and that they can be run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping

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


def leave_what_is_left(model_class: Any, config: Any) -> None:
    """Let a quantized checkpoint's lists of modules that are not quantized be read as when they were written.

    Up to transformers 4 a name was looked for anywhere in a module's, and modules had other names: AWQ's ``visual`` is
    ``model.visual`` now, which only begins so. Without, layers are made quantized for which there are plain weights.
    """
    stored = getattr(config, "quantization_config", None)
    if not isinstance(stored, dict):
        return
    with torch.device("meta"):
        renamings = get_model_conversion_mapping(model_class(config))

    def now(name: str) -> str:
        name += "."  # as in the name of a weight
        for renaming in renamings:
            name = renaming.rename_source_key(name)[0]
        return name.removesuffix(".")

    listed = {key: stored[key] for key in ("modules_to_not_convert", "llm_int8_skip_modules") if stored.get(key)}
    new = {key: [*names, *map(now, names), *map(_anywhere, names)] for key, names in listed.items()}
    if ignored := stored.get("ignore"):  # of compressed-tensors: whole names, or patterns of them
        patterns = [f"re:{_anywhere(name[3:].removeprefix('^'))}" for name in ignored if name.startswith("re:")]
        new["ignore"] = [*ignored, *(now(name) for name in ignored if not name.startswith("re:")), *patterns]
    config.quantization_config = stored | new


def _anywhere(name: str) -> str:
    return rf"(?:.*\.)?{name}"


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
