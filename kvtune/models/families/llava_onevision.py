"""LLaVA-OneVision: SigLIP's tiles as in LLaVA-NeXT, pooled where they are many; a Qwen2 that reads them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from kvtune.models.families.generic import Generic
from kvtune.models.families.llava_next import packed_places
from kvtune.models.family import VisionLanguageModel


class LlavaOneVision(Generic):
    """LLaVA-OneVision as transformers holds it (llava-hf/llava-onevision-...), in the chat template that it ships."""

    name = "llava-onevision"
    model_types = ("llava_onevision",)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        aspect = vlm.hf_model.config.vision_aspect_ratio
        return packed_places(vlm, inputs["image_sizes"], vision_aspect_ratio=aspect)
