"""Gemma 3: 256 visual tokens that see each other both ways; five layers with a window to one that sees all."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from kvtune.models.families.generic import Generic
from kvtune.models.family import VisionLanguageModel
from kvtune.models.places import grid_places


class Gemma3(Generic):
    """Gemma 3 in the chat template that it ships: the whole picture as a square, no tiles of it (pan and scan)."""

    name = "gemma3"
    model_types = ("gemma3",)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        if vlm.processor.image_processor.do_pan_and_scan:
            return None
        side = round(vlm.hf_model.config.mm_tokens_per_image**0.5)
        return [grid_places(side, side)] * len(inputs["input_ids"])
