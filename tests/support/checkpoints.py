"""Small random checkpoints of every family's true architecture, written to a folder as the published ones are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers_made_here import bert_tokenizer, llama_tokenizer, qwen_tokenizer
from transformers import (
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from kvtune.models.minigpt4.model import MiniGpt4Config, MiniGpt4ForConditionalGeneration

LAYERS = 3
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's published chat template, less its cases for videos and numbered pictures."""
QWEN3_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3-VL's, less its cases for videos, numbered pictures, tools and thinking."""


def text_settings(vocabulary: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


def randomise(model: Any, seed: int) -> Any:
    """Weights large enough that tokens vary, in a model that writes no end of text of itself."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        spread = 0.25 if parameter.ndim > 1 else 0.1
        noise = torch.randn(parameter.shape, generator=generator) * spread
        parameter.data = (noise + (1 if parameter.ndim == 1 else 0)).to(parameter.dtype)
    return model.eval()


def save_llava(folder: Path, seed: int = 0, kv_heads: int = 4, legacy: bool = True, **special: str) -> Path:
    """LLaVA: 28 pixels in patches of 7, 16 visual tokens."""
    tokenizer = llama_tokenizer(("<image>", "<pad>"), legacy=legacy, **{"pad_token": "<pad>", **special})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text_settings(len(tokenizer), kv_heads)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _save(folder, randomise(LlavaForConditionalGeneration(config), seed), processor)


def save_llava_next(
    folder: Path, seed: int = 0, mistral: bool = False, kv_heads: int = 4, layers: int = LAYERS
) -> Path:
    """LLaVA-NeXT: tiles of 28 pixels in patches of 7, pinpoints as the published ones, scaled down."""
    tokenizer = llama_tokenizer(("<image>", "<pad>"), pad_token="<pad>")
    pinpoints = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=7
    )
    text = MistralConfig(sliding_window=None, **text_settings(len(tokenizer), 2)) if mistral else None
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text or LlamaConfig(**text_settings(len(tokenizer), kv_heads, num_hidden_layers=layers)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return _save(folder, randomise(LlavaNextForConditionalGeneration(config), seed), processor)


def save_qwen(folder: Path, seed: int = 0, template: str | None = QWEN_TEMPLATE, layers: int = LAYERS) -> Path:
    """Qwen2.5-VL: grouped key and value heads, three rotary axes, a window in its vision tower, sampling defaults."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = template
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config=text_settings(
            len(tokenizer), 2, eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"),
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
            num_hidden_layers=layers,
        ),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    model = randomise(Qwen2_5_VLForConditionalGeneration(config), seed)
    model.generation_config.update(
        do_sample=True, repetition_penalty=1.05, temperature=1e-6, top_p=0.8,
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")], pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 8 * 8 * 4, "longest_edge": 8 * 8 * 30}
    )
    _save(folder, model, tokenizer)
    images.save_pretrained(folder)
    return folder


def save_qwen3_vl(folder: Path, seed: int = 0, deepstack: bool = True) -> Path:
    """Qwen3-VL: features of two layers of its tower added in the first two of three decoder layers, three axes."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = QWEN3_TEMPLATE
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2] if deepstack else [],
        },
        text_config=text_settings(
            len(tokenizer), 2, eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"), head_dim=8,
            rope_parameters={
                "rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e4,
            },
        ),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    model = randomise(Qwen3VLForConditionalGeneration(config), seed)
    model.generation_config.update(
        do_sample=True, top_p=0.8, eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
        pad_token_id=ids("<|endoftext|>"),
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 8 * 8 * 4, "longest_edge": 8 * 8 * 30}
    )
    _save(folder, model, tokenizer)
    images.save_pretrained(folder)
    return folder


def save_instructblip(folder: Path, seed: int = 0, kv_heads: int = 4) -> Path:
    """InstructBLIP: 28 pixels in patches of 7, 4 queries, "</s>" (id 2) as its beginning of text."""
    tokenizer = llama_tokenizer(("[PAD]", "<image>"), bos="</s>", pad_token="[PAD]")
    config = InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=7,
        ),
        qformer_config=InstructBlipQFormerConfig(
            vocab_size=len(bert_tokenizer()), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64, encoder_hidden_size=16,
        ),
        text_config=LlamaConfig(**text_settings(len(tokenizer), kv_heads)),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = BlipImageProcessorPil(size={"height": 28, "width": 28})
    processor = InstructBlipProcessor(images, tokenizer, bert_tokenizer(), num_query_tokens=4)
    return _save(folder, randomise(InstructBlipForConditionalGeneration(config), seed), processor)


def save_minigpt4(folder: Path, seed: int = 0, kv_heads: int = 4) -> Path:
    """MiniGPT-4: 28 pixels in patches of 7, 4 queries."""
    tokenizer = llama_tokenizer()
    config = MiniGpt4Config(
        vision_config=Blip2VisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=7,
        ),
        qformer_config=Blip2QFormerConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, encoder_hidden_size=16
        ),
        text_config=LlamaConfig(**text_settings(len(tokenizer) + 1, kv_heads)),
        num_query_tokens=4,
    )  # fmt: skip
    BlipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    model = randomise(MiniGpt4ForConditionalGeneration(config), seed)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return _save(folder, model, tokenizer)


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


SAVERS: dict[str, Callable[..., Path]] = {
    "llava-1.5": save_llava,
    "llava-next": save_llava_next,
    "qwen2.5-vl": save_qwen,
    "qwen3-vl": save_qwen3_vl,
    "instructblip": save_instructblip,
    "minigpt4": save_minigpt4,
}
