"""Random weights in any checkpoint's architecture with fewer layers: what a proof needs where no weights are."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig

from kvtune.models.checkpoint import description, family_of_config, locate, read_config
from kvtune.models.devices import resolve_device
from kvtune.models.family import VisionLanguageModel
from kvtune.models.loading import make_ready, resolve_dtype
from kvtune.models.misfit import in_a_line

TEXT_LAYERS, VISION_LAYERS = 6, 3
"""Enough for every kind of layer that a decoder alternates between."""
_COUNTS = ("num_hidden_layers", "depth")


def random_with_fewer_layers(
    name: str, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> VisionLanguageModel:
    """A model of a checkpoint's widths, tokens and processor, a few layers deep, with random weights.

    Parameters
    ----------
    name, device, dtype, revision
        As for :func:`kvtune.models.load_model`; of Hub weights only the description is downloaded.

    Raises
    ------
    RequestError
        As :func:`kvtune.models.load_model`.
    """
    target = resolve_device(device)
    family, source, called = locate(name)
    folder, commit = description(source, revision)
    family = family_of_config(family, read_config(folder, source), source)
    with in_a_line(f"cannot build {source} as {family.title}"):
        model_class = family.model_class()
        config = model_class.config_class.from_pretrained(folder)
        shorten(config)
        processor = family.load_processor(folder, config)
        torch.manual_seed(0)
        hf_model = model_class(config)
        has_own = (folder / "generation_config.json").is_file()
        hf_model.generation_config = GenerationConfig.from_pretrained(folder) if has_own else GenerationConfig()
    for parameter in hf_model.parameters():
        if parameter.ndim > 1:  # so large that tokens differ, and so small that softmaxes are not all on one of them
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    hf_model.to(target, resolve_dtype(dtype, target, config, family.evaluation_dtype))
    vlm = VisionLanguageModel(family, hf_model.eval(), processor, f"{called} (random weights)", source, commit)
    make_ready(vlm)
    return vlm


def shorten(config: Any) -> None:
    """Leave a configuration the first layers of each of its parts, and what it says of layers by number for those."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs if getattr(config, name, None))):
        for name in _COUNTS:
            layers = getattr(part, name, None)
            if isinstance(layers, int):
                is_text = part is config.get_text_config(decoder=True)
                _shorten(part, name, layers, min(layers, TEXT_LAYERS if is_text else VISION_LAYERS))
    chosen = getattr(config, "vision_feature_layer", None)
    if isinstance(chosen, int) and abs(chosen) >= VISION_LAYERS:
        config.vision_feature_layer = -1


def _shorten(part: Any, name: str, layers: int, kept: int) -> None:
    setattr(part, name, kept)
    for key, value in list(vars(part).items()):
        if isinstance(value, list | tuple) and value and len(value) == layers and key.startswith("layer"):
            setattr(part, key, list(value)[:kept])
        elif key.endswith("_indexes") and isinstance(value, list | tuple):
            setattr(part, key, [index for index in value if index < kept] or [kept - 1] * bool(value))
