"""LLaVA-1.5: CLIP at 336 pixels, 576 visual tokens, a Vicuna that reads them in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from kvtune.models.base import Family, VisionLanguageModel


class Llava(Family):
    """LLaVA-1.5 as transformers holds it, prompted as OPERA's evaluation does (no space before USER)."""

    name = "llava-1.5"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    hub_ids: ClassVar[dict[str, str]] = {
        "llava-1.5": "llava-hf/llava-1.5-7b-hf",
        "llava-1.5-13b": "llava-hf/llava-1.5-13b-hf",
    }
    published_presets: ClassVar[dict[str, str]] = {"llava-1.5": "llava-1.5"}
    template = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
        " and polite answers to the user's questions.USER: <image> {prompt} ASSISTANT:"
    )

    def load(self, source: str | Path, **settings: Any) -> tuple[Any, Any]:
        model = LlavaForConditionalGeneration.from_pretrained(source, **settings)
        processor = AutoProcessor.from_pretrained(source, revision=settings.get("revision"), backend="pil")
        return model, processor

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        text = self.template.format(prompt=prompt)
        return dict(
            vlm.processor(
                images=list(images), text=[text] * len(images), padding=True, padding_side="left", return_tensors="pt"
            )
        )

    def visual_tokens(self, vlm: VisionLanguageModel, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["input_ids"] == vlm.hf_model.config.image_token_id
