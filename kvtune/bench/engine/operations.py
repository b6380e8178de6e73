"""How many floating-point operations captions need: those that any way of making them has to do."""

from __future__ import annotations

from typing import Any

import torch

from kvtune.bench.engine.workload import Made, Workload
from kvtune.models import VisionLanguageModel

_WITH_WEIGHTS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)


def decoder_weights(vlm: VisionLanguageModel) -> tuple[int, int]:
    """Weights of the decoder's layers, and of what makes logits of their output."""
    layers = sum(parameter.numel() for parameter in vlm.decoder.layers.parameters())
    return layers, vlm.hf_model.get_output_embeddings().weight.numel()


def vision_operations(work: Workload) -> int:
    """Operations before the decoder for one image, counted while it is captioned: 2 x weights x tokens of each module.

    The products of a vision tower's own attention, which have no weights, are left out: a tenth of the tower, and a
    thousandth of a caption.
    """
    vlm, counted = work.vlm, 0
    inside = {*vlm.decoder.modules(), vlm.hf_model.get_output_embeddings()}

    def count(module: Any, arguments: object, output: torch.Tensor) -> None:
        nonlocal counted
        width = output.shape[-1 if isinstance(module, torch.nn.Linear) else 1]
        counted += 2 * module.weight.numel() * (output.numel() // width)

    hooks = [
        module.register_forward_hook(count)
        for module in vlm.hf_model.modules()
        if isinstance(module, _WITH_WEIGHTS) and module not in inside
    ]
    try:
        with work.short(1):
            work.generate(work.all[:1], 1, None, None)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def operations(work: Workload, made: Made, vision: int) -> int:
    """All operations that the captions of ``made`` need, two a multiplication with a weight.

    With W the decoder's weights, H those of its head, A its layers x heads x head size, P the prompt's tokens, and V
    what an image takes before the decoder (:func:`vision_operations`)::

        a prompt   V + 2 W P + 2 H + 4 A P^2 / 2         attention reads half of the prompt's positions on average
        a token    2 (W + H) + 4 A (P + half a caption)  but not the first of a caption, which the prompt gives

    The engine needs a prompt once an image, ``generate()`` once a caption.
    """
    layers, head = decoder_weights(work.vlm)
    prompt = work.prompt_tokens
    # A product of queries and keys, and one of weights and values: two operations each.
    attention = 4 * work.vlm.n_layers * work.vlm.heads.heads * work.vlm.head_dim
    prefill = vision + 2 * layers * prompt + 2 * head + attention * prompt**2 // 2
    decoded = made.tokens - made.captions
    return made.prompts * prefill + round(decoded * (2 * (layers + head) + attention * mean_positions(work, made)))


def mean_positions(work: Workload, made: Made) -> float:
    """Positions that a decode step reads for a caption, on average: its prompt and half of its length."""
    return work.prompt_tokens + made.tokens / made.captions / 2
