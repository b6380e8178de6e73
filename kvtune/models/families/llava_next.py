"""LLaVA-NeXT (LLaVA-1.6): an image as several tiles of CLIP, up to some 2,900 visual tokens, as many as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from kvtune.models.families.llava import Llava, vision_side
from kvtune.models.family import VisionLanguageModel
from kvtune.models.places import grid_places, tile_places
from kvtune.models.prompt_ids import is_sentencepiece


class LlavaNext(Llava):
    """LLaVA-NeXT, prompted as its model cards say: each language model in the format that it was trained on.

    Vicuna and Mistral have the templates here; others (Llama 3, Yi, Qwen) the chat template that the checkpoint ships.
    As in LLaVA's own code, the text before and after the image is tokenised apart.
    """

    name = "llava-next"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    template = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: <image>\n{prompt} ASSISTANT:"
    )
    mistral_template = "[INST] <image>\n{prompt} [/INST]"

    def model_class(self) -> Any:
        from transformers import LlavaNextForConditionalGeneration

        return LlavaNextForConditionalGeneration

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor]:
        """The whole picture, then its tiles side by side without the canvas around it, each line with its end.

        The places are packed as the model packs the features.
        """
        strategy = vlm.hf_model.config.vision_feature_select_strategy
        return packed_places(vlm, inputs["image_sizes"], vision_feature_select_strategy=strategy)

    def seen(self, vlm: VisionLanguageModel, image: Image.Image) -> Image.Image:
        return image

    def template_for(self, vlm: VisionLanguageModel) -> str | None:
        kind = vlm.hf_model.config.get_text_config(decoder=True).model_type
        # Yi-34B is a Llama with a SentencePiece vocabulary too; its chat marks tell it from Vicuna.
        vicuna = kind == "llama" and "<|im_start|>" not in vlm.tokenizer.get_vocab()
        if is_sentencepiece(vlm.tokenizer) and (vicuna or kind == "mistral"):
            return self.template if vicuna else self.mistral_template
        return None


def packed_places(vlm: VisionLanguageModel, image_sizes: Tensor, **packing: Any) -> list[Tensor]:
    """Places of the tokens of pictures of some sizes, [images, 2], height first.

    Places of the whole picture and of its tiles go where the model puts the features of those; its line ends have none.
    """
    model, side = vlm.hf_model.model, vision_side(vlm.hf_model.config)
    whole = grid_places(side, side)[None]
    features = []
    for size in image_sizes.tolist():
        config = vlm.hf_model.config
        tiles = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, config.vision_config.image_size)
        features.append(torch.cat([whole, tile_places(tiles, side, tuple(size))]))
    packed = model.pack_image_features(
        features, image_sizes.cpu(), image_newline=torch.full((2,), torch.nan), **packing
    )
    return [places.clamp(0, 1) for places in packed[0]]
