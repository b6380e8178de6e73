"""MiniGPT-4 on Vicuna-7B v0: BLIP-2's 32 query embeddings in a prompt of "###Human" and "###Assistant"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from kvtune.models.family import Family, Processor, VisionLanguageModel
from kvtune.models.image_processor import pillow_image_processor
from kvtune.models.prompt_ids import SPACE, prompt_rows, segment_ids

IMAGE = "<ImageHere>"


class MiniGpt4(Family):
    """MiniGPT-4, prompted and cut as in OPERA's evaluation.

    No system text; the text before and after the image tokenised apart, the beginning of text put before the first
    piece. The caption is what stands before "###" and after "Assistant:". Decoding ends at "###", which gives the same
    captions as writing on.
    """

    name = "minigpt4"
    model_types: ClassVar[tuple[str, ...]] = ("minigpt4",)
    # The evaluation turns <unk> and <s> into end of text, which is not spelt out.
    silent_tokens: ClassVar[frozenset[int]] = frozenset({0, 1})
    template = "###Human: <Img><ImageHere></Img> {prompt} ###Assistant:"

    def model_class(self) -> Any:
        from kvtune.models.minigpt4.model import MiniGpt4ForConditionalGeneration

        return MiniGpt4ForConditionalGeneration

    def load_processor(self, folder: Path, config: Any) -> Any:
        from transformers import AutoTokenizer

        return Processor(AutoTokenizer.from_pretrained(folder), pillow_image_processor(folder))

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        tokenizer, config = vlm.tokenizer, vlm.hf_model.config
        before, after = self.template.format(prompt=prompt).split(IMAGE, 1)
        row = (
            [tokenizer.bos_token_id, *segment_ids(tokenizer, before)],
            config.num_query_tokens,
            segment_ids(tokenizer, after),
        )
        pixels = vlm.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        return {**prompt_rows([row] * len(images), config.image_token_id, vlm.pad_token_id), "pixel_values": pixels}

    def finish(self, text: str) -> str:
        return text.split("###")[0].split("Assistant:")[-1].strip()

    def stop_sequences(self, vlm: VisionLanguageModel) -> list[list[int]]:
        """ "###" after a space and, in two tokens, after anything else: [835] and [2277, 29937] of Vicuna's."""
        model = vlm.tokenizer.backend_tokenizer.model
        return [[token.id for token in model.tokenize(text)] for text in (SPACE + "###", "###")]
