"""From images to prefixes: the prompt of each image, run through the model once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from kvtune.captioning.grid import Prefix
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel


def prefill(
    vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str | None, methods: Sequence[Method | None]
) -> list[Prefix]:
    """Prefixes of ``images``, computed as one batch.

    Parameters
    ----------
    methods
        One an image; those that touch the prompt do so here.
    """
    inputs = vlm.prepare(images, prompt)
    cache: Any = DynamicCache(config=vlm.decoder.config)
    outputs: list[Tensor] = []

    def keep(projection: object, arguments: tuple[Tensor, ...]) -> None:
        outputs.append(arguments[0][:, -1])

    hooks = [layer.self_attn.o_proj.register_forward_pre_hook(keep) for layer in vlm.decoder.layers]
    try:
        first_tokens = vlm.family.prefill(vlm, inputs, cache).argmax(-1).tolist()
    finally:
        for hook in hooks:
            hook.remove()
    next_positions = vlm.family.next_positions(vlm, inputs).tolist()
    lengths = inputs["attention_mask"].sum(1).tolist()
    heads = vlm.decoder.config.num_attention_heads
    last_outputs = torch.stack(outputs).view(len(outputs), len(images), heads, -1)
    prefixes = []
    for row, method in enumerate(methods):
        keys = torch.stack([layer.keys[row, :, -lengths[row] :] for layer in cache.layers])
        values = torch.stack([layer.values[row, :, -lengths[row] :] for layer in cache.layers])
        if method is not None and method.prefix_key is not None:
            method.edit_prefix(list(keys[:, None]), list(values[:, None]))
        prefixes.append(Prefix(keys, values, last_outputs[:, row], first_tokens[row], next_positions[row]))
    return prefixes
