"""LLaVA-NeXT (LLaVA-1.6): an image as several tiles of CLIP, up to some 2,900 visual tokens, as many as it needs."""

from __future__ import annotations

from typing import Any, ClassVar

from kvtune.models.families.llava import Llava
from kvtune.models.family import VisionLanguageModel
from kvtune.models.prompt_ids import is_sentencepiece


class LlavaNext(Llava):
    """LLaVA-NeXT, prompted as its model cards say: each language model in the format that it was trained on.

    Vicuna and Mistral have the templates here; others (Llama 3, Yi, Qwen) the chat template that the checkpoint ships.
    As in LLaVA's own code, the text before and after the image is tokenised apart.
    """

    name = "llava-next"
    title = "LLaVA-NeXT"
    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    hub_ids: ClassVar[dict[str, str]] = {"llava-next": "llava-hf/llava-v1.6-vicuna-7b-hf"}
    billions: ClassVar[dict[str, float]] = {"llava-next": 7.06}
    gpu_gib: ClassVar[dict[str, float]] = {"llava-next": 13.2}
    published_presets: ClassVar[dict[str, str]] = {}
    template = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: <image>\n{prompt} ASSISTANT:"
    )
    mistral_template = "[INST] <image>\n{prompt} [/INST]"

    def model_class(self) -> Any:
        from transformers import LlavaNextForConditionalGeneration

        return LlavaNextForConditionalGeneration

    def template_for(self, vlm: VisionLanguageModel) -> str | None:
        kind = vlm.hf_model.config.get_text_config(decoder=True).model_type
        # Yi-34B is a Llama with a SentencePiece vocabulary too; its chat marks tell it from Vicuna.
        vicuna = kind == "llama" and "<|im_start|>" not in vlm.tokenizer.get_vocab()
        if is_sentencepiece(vlm.tokenizer) and (vicuna or kind == "mistral"):
            return self.template if vicuna else self.mistral_template
        return None
