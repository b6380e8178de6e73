"""InternVL3.5: the picture stretched over tiles of 448 pixels, then the whole of it; a Qwen3 that reads them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from kvtune.models.families.generic import Generic
from kvtune.models.family import VisionLanguageModel
from kvtune.models.places import tiles_then_whole


class InternVL35(Generic):
    """InternVL3.5 and InternVL3 as transformers holds them (OpenGVLab/...-HF), asked without thinking."""

    name = "internvl3.5"
    model_types = ("internvl",)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

        processor, side = vlm.processor.image_processor, round(vlm.hf_model.config.image_seq_length**0.5)
        tile = (processor.size["height"], processor.size["width"])
        grids = [
            get_optimal_tiled_canvas((image.height, image.width), tile, processor.min_patches, processor.max_patches)
            for image in images
        ]
        return [tiles_then_whole(rows, columns, side) for columns, rows in grids]
