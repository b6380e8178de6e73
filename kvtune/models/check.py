"""One model on one image: does it load, where are its visual tokens, what does it say, what does it take."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch
from PIL import Image

from kvtune.models.family import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class ModelCheck:
    """What a look at a loaded model gives.

    Attributes
    ----------
    layers, heads, kv_heads
        Of the text decoder.
    prompt_tokens
        Tokens of the whole prompt, visual ones included.
    visual_tokens, visual_ranges
        How many of them are visual, and where: ranges of positions, counted from 0, the end left out.
    tokens, seconds
        Tokens of the caption, and what prompt and caption took.
    weights_gib, peak_gib
        Memory of the weights, and the highest that the GPU's was; None without a GPU.
    """

    name: str
    family: str
    id: str
    revision: str | None
    device: str
    dtype: str
    layers: int
    heads: int
    kv_heads: int
    prompt: str
    prompt_tokens: int
    visual_tokens: int
    visual_ranges: list[tuple[int, int]]
    caption: str
    tokens: int
    seconds: float
    weights_gib: float
    peak_gib: float | None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@torch.inference_mode()
def check_model(
    vlm: VisionLanguageModel, image: Image.Image, prompt: str | None = None, max_new_tokens: int = 128
) -> ModelCheck:
    """Caption ``image`` greedily and look at how the model took it; parameters as for the captioner."""
    config = vlm.decoder.config
    inputs = vlm.prepare([image], prompt)
    visual = vlm.family.visual_tokens(vlm, inputs)[0].nonzero().flatten().tolist()
    length = inputs["input_ids"].shape[1]
    on_gpu = vlm.device.type == "cuda"
    start = time.perf_counter()
    output = vlm.hf_model.generate(**inputs, max_new_tokens=max_new_tokens)
    written = output[0, length:].tolist()
    seconds = time.perf_counter() - start
    tensors = {id(tensor): tensor for tensor in (*vlm.hf_model.parameters(), *vlm.hf_model.buffers())}
    return ModelCheck(
        name=vlm.name,
        family=vlm.family.name,
        id=vlm.model_id,
        revision=vlm.revision,
        device=str(vlm.device),
        dtype=vlm.dtype_name,
        layers=vlm.n_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        prompt=prompt if prompt is not None else vlm.default_prompt,
        prompt_tokens=length,
        visual_tokens=len(visual),
        visual_ranges=_ranges(visual),
        caption=vlm.decode(written),
        tokens=len([token for token in written if token not in vlm.eos_token_ids]),
        seconds=round(seconds, 3),
        weights_gib=round(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 2**30, 6),
        peak_gib=round(torch.cuda.max_memory_allocated(vlm.device) / 2**30, 6) if on_gpu else None,
    )


def _ranges(places: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges [first, past the last)."""
    ranges: list[tuple[int, int]] = []
    for place in places:
        if ranges and ranges[-1][1] == place:
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((place, place + 1))
    return ranges
