"""SmolVLM2: the picture stretched over tiles that are named by row and column, then the whole of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from kvtune.models.families.generic import Generic
from kvtune.models.family import VisionLanguageModel
from kvtune.models.places import tiles_then_whole

_TILE = re.compile(r"<row_(\d+)_col_(\d+)>")


class SmolVLM2(Generic):
    """SmolVLM2 and SmolVLM in the chat template that they ship."""

    name = "smolvlm2"
    model_types = ("smolvlm",)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        side = round(vlm.processor.image_seq_len**0.5)
        texts = vlm.tokenizer.batch_decode(inputs["input_ids"])
        last = [max(((int(row), int(column)) for row, column in _TILE.findall(text)), default=(0, 0)) for text in texts]
        return [tiles_then_whole(rows, columns, side) for rows, columns in last]
