"""Full-size models with random weights, to measure speed where no real weights are: it does not depend on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipQFormerConfig,
    LlamaConfig,
    LlavaConfig,
)

from kvtune.errors import RequestError
from kvtune.models.families.instructblip import InstructBlip
from kvtune.models.families.llava import Llava
from kvtune.models.family import Family, VisionLanguageModel
from kvtune.models.loading import resolve_dtype
from kvtune.models.prompt_ids import prompt_rows
from kvtune.models.weight_memory import weight_bytes_of
from kvtune.text import quoted


def _vicuna(vocabulary: int, width: int = 4096, inner: int = 11008, layers: int = 32) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )


def _llava(text_config: LlamaConfig) -> LlavaConfig:
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
        text_config=text_config,
        image_token_index=32000,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _instructblip() -> InstructBlipConfig:
    """InstructBLIP's public configuration (Salesforce/instructblip-vicuna-7b), whose tower is transformers' default."""
    return InstructBlipConfig(
        qformer_config=InstructBlipQFormerConfig(vocab_size=30523),
        text_config=_vicuna(32001),
        num_query_tokens=32,
        image_token_index=32000,
    )


class _RandomLlava(Llava):
    """Prompts of LLaVA-1.5's length, without a tokenizer: 35 tokens before the image and 15 after it."""

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        config = vlm.hf_model.config
        return {
            **prompt_rows([([1] * 35, config.image_seq_length, [1] * 15)] * len(images), config.image_token_id, 0),
            "pixel_values": _noise(images, config.vision_config.image_size),
        }


class _RandomInstructBlip(InstructBlip):
    """Prompts of InstructBLIP's length, without tokenizers: the queries, "</s>" and 8 tokens of the question."""

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        config = vlm.hf_model.config
        question = torch.ones(len(images), 10, dtype=torch.long)
        return {
            **prompt_rows([([], config.num_query_tokens, [2] + [1] * 8)] * len(images), config.image_token_id, 0),
            "pixel_values": _noise(images, config.vision_config.image_size),
            "qformer_input_ids": question,
            "qformer_attention_mask": torch.ones_like(question),
        }


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is built for a name: a family that needs no tokenizer, and the published configuration."""

    family: type[Family]
    config: Callable[[], Any]


ARCHITECTURES: dict[str, Architecture] = {
    "llava-1.5": Architecture(_RandomLlava, lambda: _llava(_vicuna(32064))),
    "llava-1.5-13b": Architecture(_RandomLlava, lambda: _llava(_vicuna(32064, 5120, 13824, 40))),
    "instructblip": Architecture(_RandomInstructBlip, _instructblip),
}


def random_model(name: str, device: torch.device, dtype: str = "auto") -> VisionLanguageModel:
    """A model of the true size and architecture, filled with random numbers on ``device``.

    Nothing of its size is ever in host memory. Its captions mean nothing and never end: force their lengths.

    Parameters
    ----------
    dtype
        As for ``load_model``; ``auto`` is bfloat16 on a GPU and float32 on a CPU.

    Raises
    ------
    RequestError
        If the size of ``name`` is not known, or the device has no room for it.
    """
    if name not in ARCHITECTURES:
        raise RequestError(f"--random-weights builds {', '.join(ARCHITECTURES)}, not {quoted(name)}")
    family, config = ARCHITECTURES[name].family(), ARCHITECTURES[name].config()
    chosen = resolve_dtype(
        dtype if dtype != "auto" else "bfloat16" if device.type == "cuda" else "float32", device, config
    )
    if device.type == "cuda":
        _refuse_too_large(name, weight_bytes_of(family, config, chosen, None).total, device)
    with torch.device("meta"):
        hf_model = family.model_class()(config)
    hf_model.to(chosen)
    if chosen.itemsize == 2:
        _keep_in_float32(hf_model)
    hf_model.to_empty(device=device)
    torch.manual_seed(0)
    with torch.no_grad():
        hf_model.initialize_weights()  # buffers too
        for parameter in hf_model.parameters():
            # Some towers begin near 0, where a GPU computes with less power, and so faster, than on real weights.
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
    hf_model.eval()
    hf_model.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)
    return VisionLanguageModel(family, hf_model, _NoProcessor(), f"{name} (random weights)", name, None)


def _keep_in_float32(hf_model: Any) -> None:
    """As ``from_pretrained`` does with what a model wants in float32 beside a language model in half precision."""
    kept = tuple(hf_model._keep_in_fp32_modules_strict or ())
    for name, parameter in hf_model.named_parameters():
        if name.startswith(kept):
            parameter.data = parameter.data.float()


def _refuse_too_large(name: str, needed: int, device: torch.device) -> None:
    free = torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise RequestError(
            f"{name} takes {needed / 2**30:.0f} GiB, and {device} has {free / 2**30:.0f} free; use a larger GPU"
        )


def _noise(images: Sequence[Image.Image], size: int) -> Tensor:
    """Pixels that differ from image to image and are the same whenever it comes again."""
    seeds = [sum(image.tobytes()[:64]) for image in images]
    return torch.stack([torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


class _NoProcessor:
    """Spells tokens as numbers."""

    tokenizer: _NoProcessor

    def __init__(self) -> None:
        self.tokenizer = self

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, token_ids))
