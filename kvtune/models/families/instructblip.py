"""InstructBLIP on Vicuna: a Q-Former that reads image and question, 32 queries before the question."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from kvtune.errors import RequestError
from kvtune.models.family import Family, Processor, VisionLanguageModel
from kvtune.models.image_processor import pillow_image_processor
from kvtune.models.prompt_ids import prompt_rows, segment_ids
from kvtune.text import quoted


@dataclasses.dataclass(frozen=True)
class InstructBlipParts(Processor):
    """Tokenizer, image processor, and the tokenizer of the Q-Former."""

    qformer_tokenizer: Any


class InstructBlip(Family):
    """InstructBLIP with a Vicuna, prompted as LAVIS and OPERA's evaluation do.

    The question alone goes to the Q-Former and to the language model, whose input is the queries, then "</s>" (id 2),
    which LAVIS sets as its beginning of text, then the question. The image is resized to 224 pixels square. Their
    ``generate`` has a repetition penalty of 1.5 where none is asked for; decoding here has none.
    """

    name = "instructblip"
    model_types: ClassVar[tuple[str, ...]] = ("instructblip",)
    # Stored in float32; LAVIS runs the language model in float16.
    evaluation_dtype: ClassVar[torch.dtype | None] = torch.float16
    # LAVIS turns <unk>, with which finished rows were filled up, into end of text, which is not spelt out.
    silent_tokens: ClassVar[frozenset[int]] = frozenset({0})

    def model_class(self) -> Any:
        return _model_class()

    def check(self, config: dict[str, Any]) -> str | None:
        kind = config.get("text_config", {}).get("model_type")
        if kind != "llama":
            return f"its language model is {quoted(kind)}; of InstructBLIP, those with Vicuna are supported"
        if config.get("image_token_index", config.get("image_token_id")) is None:
            return "it is from before transformers gave images tokens of their own; download its present revision"
        return None

    def load_processor(self, folder: Path, config: Any) -> Any:
        from transformers import AutoTokenizer

        return InstructBlipParts(
            AutoTokenizer.from_pretrained(folder),
            pillow_image_processor(folder),
            AutoTokenizer.from_pretrained(folder / "qformer_tokenizer"),
        )

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        processor, config = vlm.processor, vlm.hf_model.config
        bos = vlm.tokenizer.convert_tokens_to_ids("</s>")
        after = [bos, *segment_ids(vlm.tokenizer, prompt)]
        question = torch.tensor([processor.qformer_tokenizer(prompt).input_ids] * len(images))
        longest = config.qformer_config.max_position_embeddings
        if question.shape[1] > longest:
            raise RequestError(f"the prompt is {question.shape[1]} tokens for the Q-Former, which takes {longest}")
        return {
            **prompt_rows(
                [([], config.num_query_tokens, after)] * len(images), config.image_token_id, vlm.pad_token_id
            ),
            "pixel_values": processor.image_processor(list(images), return_tensors="pt")["pixel_values"],
            "qformer_input_ids": question,
            "qformer_attention_mask": torch.ones_like(question),
        }


@functools.cache
def _model_class() -> Any:
    from transformers import InstructBlipForConditionalGeneration as Published

    class InstructBlipForConditionalGeneration(Published):
        """With vision tower and Q-Former in float32 when the language model is in half precision.

        LAVIS runs the Q-Former so, and the vision tower with a float32 residual stream.
        """

        _keep_in_fp32_modules_strict = ["vision_model", "query_tokens", "qformer", "language_projection"]  # noqa: RUF012

    return InstructBlipForConditionalGeneration
