"""Qwen3-VL: as Qwen2.5-VL, and features of the image are added in the first decoder layers too."""

from __future__ import annotations

from typing import Any, ClassVar

from kvtune.models.families.qwen2_5_vl import Qwen2_5_VL


class Qwen3VL(Qwen2_5_VL):
    """Qwen3-VL with the chat template of its checkpoint, which has no system sentence."""

    name = "qwen3-vl"
    title = "Qwen3-VL"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    hub_ids: ClassVar[dict[str, str]] = {
        "qwen3-vl": "Qwen/Qwen3-VL-8B-Instruct",
        "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
        "qwen3-vl-2b": "Qwen/Qwen3-VL-2B-Instruct",
    }
    billions: ClassVar[dict[str, float]] = {"qwen3-vl": 8.77, "qwen3-vl-4b": 4.44, "qwen3-vl-2b": 2.13}
    gpu_gib: ClassVar[dict[str, float]] = {"qwen3-vl": 16.3, "qwen3-vl-4b": 8.3, "qwen3-vl-2b": 4.0}
    chat_template: ClassVar[str] = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{{ messages[0]['content'][1]['text'] }}"
        "<|im_end|>\n{{ '<|im_start|>assistant\n' }}"
    )

    def model_class(self) -> Any:
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration
