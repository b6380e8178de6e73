"""Full-size models with random weights, to measure speed where no real weights are: it does not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from kvtune.errors import RequestError
from kvtune.models.base import VisionLanguageModel
from kvtune.models.llava import Llava

_TEXT_TOKENS = (35, 15)
"""Tokens before and after the image in LLaVA-1.5's prompt, begin-of-text included."""


def _llava(hidden_size: int, intermediate_size: int, layers: int, heads: int) -> LlavaConfig:
    """LLaVA-1.5's public configuration (llava-hf/llava-1.5-7b-hf and -13b-hf)."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            projection_dim=768,
            image_size=336,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=32064,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        image_token_index=32000,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


CONFIGS: dict[str, Callable[[], LlavaConfig]] = {
    "llava-1.5": lambda: _llava(4096, 11008, 32, 32),
    "llava-1.5-13b": lambda: _llava(5120, 13824, 40, 40),
}


def random_model(name: str, device: torch.device, dtype: torch.dtype) -> VisionLanguageModel:
    """A model of the true size and architecture, filled with random numbers on ``device``.

    Its captions mean nothing and never end: force their lengths.

    Raises
    ------
    RequestError
        If the size of ``name`` is not known.
    """
    if name not in CONFIGS:
        raise RequestError(f"--random-weights builds {', '.join(CONFIGS)}, not {name!r}")
    config = CONFIGS[name]()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            hf_model: Any = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    hf_model.eval()
    hf_model.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)
    return VisionLanguageModel(_RandomLlava(), hf_model, _NoProcessor(), f"{name} (random weights)", name, None)


class _RandomLlava(Llava):
    """Prompts of the right length without a tokenizer."""

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        config = vlm.hf_model.config
        before, after = _TEXT_TOKENS
        ids = [1] * before + [config.image_token_id] * config.image_seq_length + [1] * after
        size = config.vision_config.image_size
        return {
            "input_ids": torch.tensor([ids] * len(images)),
            "attention_mask": torch.ones(len(images), len(ids), dtype=torch.long),
            "pixel_values": torch.randn(len(images), 3, size, size),
        }


class _NoProcessor:
    """Spells tokens as numbers."""

    tokenizer: _NoProcessor

    def __init__(self) -> None:
        self.tokenizer = self

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, token_ids))
