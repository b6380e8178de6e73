"""Any checkpoint that transformers loads as image-text-to-text, as long as it ships a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kvtune.errors import RequestError
from kvtune.hf import head_sizes, image_token_id, text_decoder
from kvtune.models.chat_processor import chat_processor, chat_template
from kvtune.models.family import Family, VisionLanguageModel
from kvtune.models.misfit import in_a_line
from kvtune.models.prompt_ids import OWN_TOKEN
from kvtune.models.reasoning import WITHOUT_THINKING, answer_ids


class Generic(Family):
    """What is known of any family by its ``model_type`` alone.

    The prompt is one user's turn of image and question in the checkpoint's chat template, expanded by its own
    processor; thinking models are asked without thinking where the template offers it. Where in the picture visual
    tokens are is not known.

    Families that know more are subclasses with a name, a model type and places.
    """

    def model_class(self) -> Any:
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        return getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[self.model_types[0]])

    def load_processor(self, folder: Path, config: Any) -> Any:
        if config.is_encoder_decoder or config.get_text_config(decoder=True).is_encoder_decoder:
            raise RequestError(f"{folder} is an encoder-decoder, and kvtune's methods are for decoders")
        with torch.device("meta"):
            head_sizes(text_decoder(self.model_class()(config)).config)
        processor = chat_processor(folder, config)
        if image_token_id(config) is None:
            raise RequestError(f"{folder} names no token for images in its config.json, so where they go is not known")
        return processor

    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        processor, tokenizer = vlm.processor, vlm.tokenizer
        token = tokenizer.convert_ids_to_tokens(image_token_id(vlm.hf_model.config))
        marks = {getattr(processor, "image_token", None), token}
        if any(str(mark) in prompt for mark in marks if mark):
            raise RequestError(OWN_TOKEN)
        with in_a_line(f"the chat template of {vlm.name} cannot be used"):
            text: str = tokenizer.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
                chat_template=chat_template(processor),
                tokenize=False,
                add_generation_prompt=True,
                **WITHOUT_THINKING,
            )
        if not any(str(mark) in text for mark in marks if mark):
            raise RequestError(f"the chat template of {vlm.name} puts no image into the prompt")
        has_bos = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        encoded = processor(
            text=[text] * len(images),
            images=[[image] for image in images],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not has_bos,
        )
        inputs = {name: torch.as_tensor(value) for name, value in encoded.items() if name != "labels"}
        if not self.visual_tokens(vlm, inputs).any(1).all():
            raise RequestError(f"the processor of {vlm.name} makes no image tokens of the number in its config.json")
        return {name: value.to(vlm.dtype) if value.is_floating_point() else value for name, value in inputs.items()}

    def decode(self, vlm: VisionLanguageModel, token_ids: Sequence[int]) -> str:
        return super().decode(vlm, answer_ids(vlm.tokenizer, token_ids))


class Unnamed(Generic):
    """The family of checkpoints of a ``model_type`` that has none of its own; its name is that."""

    def __init__(self, model_type: str) -> None:
        self.name = model_type  # type: ignore[misc]
        self.model_types = (model_type,)  # type: ignore[misc]

    @property
    def title(self) -> str:
        return self.name


def is_image_text_to_text(model_type: str) -> bool:
    """Whether transformers loads models of this type as image-text-to-text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
