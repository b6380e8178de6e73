"""Qwen3-VL: as Qwen2.5-VL, and features of the image are added in the first decoder layers too."""

from __future__ import annotations

from typing import Any, ClassVar

from kvtune.models.families.qwen2_5_vl import Qwen2_5_VL


class Qwen3VL(Qwen2_5_VL):
    """Qwen3-VL with the chat template of its checkpoint, which has no system sentence."""

    name = "qwen3-vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    chat_template: ClassVar[str] = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{{ messages[0]['content'][1]['text'] }}"
        "<|im_end|>\n{{ '<|im_start|>assistant\n' }}"
    )

    def model_class(self) -> Any:
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration
