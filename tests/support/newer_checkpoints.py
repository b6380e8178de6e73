"""Small random checkpoints of this year's architectures, written to a folder as the published ones are."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoints import QWEN3_TEMPLATE, randomise, text_settings
from tokenizers_made_here import byte_tokenizer, qwen_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Gemma3ImageProcessorPil,
    Glm4vImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    PixtralImageProcessorPil,
    ProcessorMixin,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    SmolVLMImageProcessorPil,
)
from transformers.models.smolvlm import processing_smolvlm

from kvtune.models import chat_processor

IM_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}IMAGE{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""One user's turn; a thinking model's, where IMAGE is what stands for one."""

SIGLIP = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 7,
    "image_size": 28,
}  # fmt: skip


def save(
    folder: Path,
    config: dict[str, Any],
    tokenizer: Any,
    image_processor: Any,
    template: str | None = IM_TEMPLATE,
    image: str = "<image>",
    seed: int = 0,
    **processor: Any,
) -> Path:
    """``config`` with its model's random weights, and everything that belongs to it.

    Processors are written by their settings alone: those with videos cannot be made where torchvision is not.
    """
    made = AutoConfig.for_model(**config)
    model = randomise(AutoModelForImageTextToText.from_config(made), seed)
    ids = tokenizer.convert_tokens_to_ids
    model.generation_config.update(
        do_sample=True, top_p=0.8, eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip
    model.save_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template.replace("IMAGE", image)
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    if processor:
        (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def text_config(kind: str, tokenizer: Any, **more: Any) -> dict[str, Any]:
    settings = text_settings(len(tokenizer), 2, **more)
    ids = tokenizer.convert_tokens_to_ids
    settings |= {"eos_token_id": ids("<|im_end|>"), "pad_token_id": ids("<|endoftext|>"), "bos_token_id": None}
    return {"model_type": kind, **settings}


def save_internvl(folder: Path, seed: int = 0, text: str = "qwen3", **how: Any) -> Path:
    """InternVL3.5: tiles of 28 pixels and a thumbnail, four patches a visual token, a Qwen3 with reasoning.

    ``text`` is the kind of its decoder.
    """
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
             "video_token": "<video>"}  # fmt: skip
    tokenizer = byte_tokenizer(tuple(names.values()), extra_special_tokens=names)
    config = {
        "model_type": "internvl",
        "vision_config": {**SIGLIP, "model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [7, 7]},
        "text_config": text_config(text, tokenizer, head_dim=8),
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "image_seq_length": 4,
    }
    images = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=6)
    settings = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    return save(folder, config, tokenizer, images, **{"image": "<IMG_CONTEXT>\n", "seed": seed, **settings, **how})


def save_llava_onevision(folder: Path, seed: int = 1, **how: Any) -> Path:
    """LLaVA-OneVision: SigLIP's tiles of 28 pixels in patches of 7, pinpoints scaled down, a Qwen2."""
    tokenizer = byte_tokenizer(("<image>", "<video>"))
    ids = tokenizer.convert_tokens_to_ids
    pinpoints = [[28 * rows, 28 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]
    config = {
        "model_type": "llava_onevision",
        "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False},
        "text_config": text_config("qwen2", tokenizer),
        "image_token_index": ids("<image>"),
        "video_token_index": ids("<video>"),
        "image_grid_pinpoints": pinpoints,
        "vision_aspect_ratio": "anyres_max_2",
    }
    images = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    settings = {"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 16, "image_token": "<image>",
                "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"}  # fmt: skip
    return save(folder, config, tokenizer, images, **{"image": "<image>\n", "seed": seed, **settings, **how})


def save_gemma3(folder: Path, seed: int = 0, window: int = 256, **how: Any) -> Path:
    """Gemma 3: sixteen visual tokens that see each other both ways, two sliding layers to one that sees all."""
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = byte_tokenizer(tuple(names.values()), extra_special_tokens=names, bos_token="<bos>")
    ids = tokenizer.convert_tokens_to_ids
    text = text_config("gemma3_text", tokenizer, head_dim=8, query_pre_attn_scalar=8, sliding_window=window)
    config = {
        "model_type": "gemma3",
        "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False},
        "text_config": {**text, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "mm_tokens_per_image": 16,
        **{f"{name.removesuffix('_token')}_token_index": ids(token) for name, token in names.items()},
    }
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28}, image_seq_length=16)
    settings = {"processor_class": "Gemma3Processor", "image_seq_length": 16}
    return save(folder, config, tokenizer, images, **{"image": "<start_of_image>", "seed": seed, **settings, **how})


def save_idefics3(folder: Path, seed: int = 0, kind: str = "Idefics3", **how: Any) -> Path:
    """Idefics3 and SmolVLM: a grid of tiles of 28 pixels with names of rows and columns, then the whole picture."""
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    special = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *rows)
    tokenizer = byte_tokenizer(special)
    config = {
        "model_type": kind.lower(),
        "vision_config": SIGLIP,
        "text_config": text_config("llama", tokenizer),
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
    }
    processor = {"Idefics3": Idefics3ImageProcessorPil, "SmolVLM": SmolVLMImageProcessorPil}[kind]
    images = processor(size={"longest_edge": 84}, max_image_size={"longest_edge": 28})
    settings = {"processor_class": f"{kind}Processor", "image_seq_len": 4}
    return save(folder, config, tokenizer, images, **{"seed": seed, **settings, **how})


def save_smolvlm(folder: Path, seed: int = 0, **how: Any) -> Path:
    return save_idefics3(folder, seed, "SmolVLM", **how)


def save_paligemma(folder: Path, seed: int = 0, text: str = "gemma", **how: Any) -> Path:
    """PaliGemma: sixteen visual tokens, a prompt whose tokens all see each other; published without a chat template."""
    tokenizer = byte_tokenizer(("<image>",), extra_special_tokens={"image_token": "<image>"}, bos_token="<bos>")
    config = {
        "model_type": "paligemma",
        "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False,
                          "projection_dim": 32},
        "text_config": text_config(text, tokenizer, head_dim=8),
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "projection_dim": 32,
        "hidden_size": 32,
    }  # fmt: skip
    images = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images.image_seq_length = 16
    settings = {"processor_class": "PaliGemmaProcessor"}
    template = "IMAGE{{ messages[0]['content'][1]['text'] }}"
    return save(folder, config, tokenizer, images, **{"template": template, "seed": seed, **settings, **how})


_PIXTRAL = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_seq_length": 1}


def save_mistral3(folder: Path, seed: int = 0, kind: str = "mistral3", **how: Any) -> Path:
    """Mistral 3: Pixtral's tower at the picture's own shape, lines with ends that are tokens of the text.

    Pixtral itself, which transformers counts among the kind ``llava``, is the same without merged patches.
    """
    tokenizer = byte_tokenizer(("[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    config = {
        "model_type": kind,
        "vision_config": {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                          "num_attention_heads": 2, "head_dim": 8, "patch_size": 7, "image_size": 84},
        "text_config": text_config("mistral", tokenizer, head_dim=8, sliding_window=None),
        "image_token_index": tokenizer.convert_tokens_to_ids("[IMG]"),
        **({"spatial_merge_size": 2} if kind == "mistral3" else _PIXTRAL),
    }  # fmt: skip
    images = PixtralImageProcessorPil(size={"longest_edge": 84}, patch_size={"height": 7, "width": 7})
    settings = {
        "processor_class": "PixtralProcessor",
        "patch_size": 7,
        "spatial_merge_size": 2 if kind == "mistral3" else 1,
    }
    return save(folder, config, tokenizer, images, **{"image": "[IMG]", "seed": seed, **settings, **how})


def save_qwen3_vl_moe(folder: Path, seed: int = 0) -> Path:
    """Qwen3-VL with experts: three rotary axes, features of the tower added in the first layers."""
    tokenizer = qwen_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e4}
    config = {
        "model_type": "qwen3_vl_moe",
        "vision_config": {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
                          "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
                          "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2]},
        "text_config": {**text_config("qwen3_vl_moe_text", tokenizer, head_dim=8, **experts), "rope_parameters": rope},
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }  # fmt: skip
    size = {"shortest_edge": 8 * 8 * 4, "longest_edge": 8 * 8 * 30}
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2, size=size)
    return save(folder, config, tokenizer, images, template=QWEN3_TEMPLATE, processor_class="Qwen3VLProcessor")


def save_glm4v(folder: Path, seed: int = 0, **how: Any) -> Path:
    """GLM-4V: three rotary axes, interleaved rotation, the picture's own shape."""
    special = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
               "<|end_of_video|>")  # fmt: skip
    tokenizer = byte_tokenizer(special)
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    config = {
        "model_type": "glm4v",
        "vision_config": {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
                          "image_size": 32, "out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2},
        "text_config": {**text_config("glm4v_text", tokenizer), "rope_parameters": rope},
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"),
        "video_end_token_id": ids("<|end_of_video|>"),
    }  # fmt: skip
    images = Glm4vImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2,
        size={"shortest_edge": 8 * 8 * 4 * 2, "longest_edge": 8 * 8 * 30 * 2},
    )  # fmt: skip
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    return save(
        folder, config, tokenizer, images, **{"image": image, "seed": seed, "processor_class": "Glm4vProcessor", **how}
    )


class PixtralProcessor(ProcessorMixin):
    """Pixtral's, whose module asks for torchvision, for pictures alone: a line of tokens, its end, the next line."""

    def __init__(self, image_processor=None, tokenizer=None, patch_size=16, spatial_merge_size=1, chat_template=None):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.cell = patch_size * spatial_merge_size
        self.image_token, self.image_token_id = "[IMG]", tokenizer.convert_tokens_to_ids("[IMG]")

    @property
    def image_token_ids(self):
        return [self.image_token_id]

    def _process_images(self, images, **settings):
        return super()._process_images(images, **{**settings, "patch_size": self.cell})

    def replace_image_token(self, image_inputs, image_idx, **settings):
        height, width = (int(side) // self.cell for side in image_inputs["image_sizes"][image_idx])
        lines = "[IMG_BREAK]".join(["[IMG]" * width] * height)
        return lines + "[IMG_END]"


@contextmanager
def packages_for_videos_stood_in_for() -> Iterator[None]:
    """Let processors be made for which torchvision or num2words would have to be there, for videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing_smolvlm, "num2words", str)
        if importlib.util.find_spec("torchvision") is None:
            found = chat_processor.processor_class
            patch.setattr(
                chat_processor,
                "processor_class",
                lambda folder, config: (
                    PixtralProcessor if config.model_type in ("mistral3", "llava") else found(folder, config)
                ),
            )
        yield


NEWER: dict[str, Callable[..., Path]] = {
    "internvl": save_internvl,
    "llava_onevision": save_llava_onevision,
    "gemma3": save_gemma3,
    "smolvlm": save_smolvlm,
    "idefics3": save_idefics3,
    "paligemma": save_paligemma,
    "mistral3": save_mistral3,
    "glm4v": save_glm4v,
}
