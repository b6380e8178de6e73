"""Qwen2.5-VL: images at their own resolution, rotary positions on three axes, a chat template."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from kvtune.models.decoder_inputs import Prompt
from kvtune.models.family import Family, Processor, VisionLanguageModel
from kvtune.models.image_processor import pillow_image_processor
from kvtune.models.places import grid_places
from kvtune.models.prompt_ids import chat_segments, find_chat_template, prompt_rows
from kvtune.models.vision_windows import windows_together

IMAGE = "<|image_pad|>"


@dataclasses.dataclass(frozen=True)
class QwenProcessor(Processor):
    """Tokenizer, image processor and chat template.

    transformers' own processor for Qwen2.5-VL wants a video processor and thereby torchvision.
    """

    chat_template: str


class Qwen2_5_VL(Family):  # noqa: N801, spelt as the model is
    """Qwen2.5-VL with the chat template of its checkpoint, one user's turn of image and question."""

    name = "qwen2.5-vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    chat_template: ClassVar[str] = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        "<|vision_end|>{{ messages[0]['content'][1]['text'] }}<|im_end|>\n{{ '<|im_start|>assistant\n' }}"
    )
    """What the published chat template makes of one image and one question, for a checkpoint that ships none."""

    def model_class(self) -> Any:
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    def load_processor(self, folder: Path, config: Any) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        template = find_chat_template(folder, tokenizer) or self.chat_template
        return QwenProcessor(tokenizer, pillow_image_processor(folder), template)

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        processor, image_token_id = vlm.processor, vlm.hf_model.config.image_token_id
        pixels = processor.image_processor(list(images), return_tensors="pt")
        # One visual token for a square of merge_size patches a side.
        counts = (pixels["image_grid_thw"].prod(1) // processor.image_processor.merge_size**2).tolist()
        before, after = chat_segments(vlm.tokenizer, processor.chat_template, IMAGE, prompt)
        inputs = prompt_rows([(before, count, after) for count in counts], image_token_id, vlm.pad_token_id)
        return {
            **inputs,
            "mm_token_type_ids": (inputs["input_ids"] == image_token_id).int(),
            "pixel_values": pixels["pixel_values"],
            "image_grid_thw": pixels["image_grid_thw"],
        }

    def decoder_inputs(
        self,
        vlm: VisionLanguageModel,
        images: Sequence[Image.Image],
        prompt: str | None = None,
        inputs: dict[str, Tensor] | None = None,
    ) -> list[Prompt]:
        with windows_together(vlm.hf_model.model.visual.config):
            return super().decoder_inputs(vlm, images, prompt, inputs)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor]:
        merge = vlm.processor.image_processor.merge_size
        grids = (inputs["image_grid_thw"][:, 1:] // merge).tolist()
        return [grid_places(rows, columns) for rows, columns in grids]
