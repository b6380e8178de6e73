"""LLaVA-1.5: CLIP at 336 pixels, 576 visual tokens, a Vicuna that reads them in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from kvtune.models.family import Family, VisionLanguageModel
from kvtune.models.image_processor import centre_crop, pillow_image_processor
from kvtune.models.places import grid_places
from kvtune.models.prompt_ids import chat_segments, is_sentencepiece, prompt_rows, segment_ids

IMAGE = "<image>"
"""The image's place in the templates here."""


class Llava(Family):
    """LLaVA-1.5 as transformers holds it, prompted as OPERA's evaluation does.

    System sentence, no space before USER, a space and not a line break after the image, the text before and after the
    image tokenised apart. The image's shorter edge becomes 336 pixels and its centre is cut out, without padding.
    """

    name = "llava-1.5"
    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    template = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
        " and polite answers to the user's questions.USER: <image> {prompt} ASSISTANT:"
    )

    def model_class(self) -> Any:
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration

    def check(self, config: dict[str, Any]) -> str | None:
        if "text_config" not in config:
            return (
                "it is in the LLaVA repository's own format; take the converted one (llava-hf/...), or convert it with "
                "transformers' convert_llava_weights_to_hf.py"
            )
        return None

    def load_processor(self, folder: Path, config: Any) -> Any:
        from transformers import AutoProcessor

        image_processor = pillow_image_processor(folder)
        processor = AutoProcessor.from_pretrained(folder)
        processor.image_processor = image_processor
        if processor.patch_size is None:  # folders written before transformers 4.47
            processor.patch_size = config.vision_config.patch_size
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        # Folders written before 4.49 say nothing of the class token.
        processor.num_additional_image_tokens = int(config.vision_config.model_type == "clip_vision_model")
        return processor

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        processor, image_token_id = vlm.processor, vlm.hf_model.config.image_token_id
        encoded = processor(
            images=list(images), text=[processor.image_token] * len(images), padding=True, return_tensors="pt"
        )
        counts = (encoded.pop("input_ids") == image_token_id).sum(1).tolist()
        del encoded["attention_mask"]
        before, after = self.segments(vlm, prompt)
        rows = prompt_rows([(before, count, after) for count in counts], image_token_id, vlm.pad_token_id)
        return {**rows, **encoded}

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        side = vision_side(vlm.hf_model.config)
        return [grid_places(side, side)] * len(inputs["input_ids"])

    def seen(self, vlm: VisionLanguageModel, image: Image.Image) -> Image.Image:
        return centre_crop(vlm.processor.image_processor, image)

    def segments(self, vlm: VisionLanguageModel, prompt: str) -> tuple[list[int], list[int]]:
        """Ids before and after the image."""
        template = self.template_for(vlm)
        if template is None:
            return chat_segments(vlm.tokenizer, vlm.processor.chat_template, vlm.processor.image_token, prompt)
        before, after = template.format(prompt=prompt).split(IMAGE, 1)
        return [vlm.tokenizer.bos_token_id, *segment_ids(vlm.tokenizer, before)], segment_ids(vlm.tokenizer, after)

    def template_for(self, vlm: VisionLanguageModel) -> str | None:
        """The template of this checkpoint's language model; None for the chat template that it ships.

        Vicuna's is the family's own; a language model of another kind (Llama 3, Qwen) has been trained on another.
        """
        own = vlm.processor.chat_template is None or is_sentencepiece(vlm.tokenizer)
        return self.template if own else None


def vision_side(config: Any) -> int:
    """Visual tokens along a side of what the vision tower sees."""
    side: int = config.vision_config.image_size // config.vision_config.patch_size
    return side
