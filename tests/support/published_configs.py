"""The published checkpoints' configurations, from their public files."""

from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    InstructBlipConfig,
    InstructBlipQFormerConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

from kvtune.models.minigpt4.model import MiniGpt4Config

CLIP_L_336 = CLIPVisionConfig(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip


def vicuna(vocabulary, width=4096, inner=11008, layers=32):
    heads = width // 128
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip


def text(kind, vocabulary, width, inner, layers, heads, kv_heads, head_dim=128):
    return {
        "model_type": kind, "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }  # fmt: skip


def so400m(layers, size):
    return {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14,
        "num_attention_heads": 16, "num_hidden_layers": layers, "image_size": size, "vision_use_head": False,
    }  # fmt: skip


def internvl(*sizes):
    return InternVLConfig(text_config=text("qwen3", 151936, *sizes, 32, 8), tie_word_embeddings=False)


def one_vision(*sizes, tied=False):
    return LlavaOnevisionConfig(
        text_config=text("qwen2", 152000, *sizes), vision_config=so400m(26, 384), tie_word_embeddings=tied
    )


def gemma3(*sizes):
    return Gemma3Config(text_config=text("gemma3_text", 262208, *sizes), vision_config=so400m(27, 896))


def smolvlm2():
    vision = {key: value for key, value in so400m(27, 384).items() if key not in ("model_type", "vision_use_head")}
    return SmolVLMConfig(
        text_config=text("llama", 49280, 2048, 8192, 24, 32, 32, 64), vision_config=vision, scale_factor=3
    )


def qwen3_vl(width, inner, layers, heads, tower):
    depth, hidden, deepstack = tower
    return Qwen3VLConfig(
        vision_config={
            "depth": depth, "hidden_size": hidden, "intermediate_size": {1152: 4304, 1024: 4096}[hidden],
            "num_heads": 16, "out_hidden_size": width, "deepstack_visual_indexes": deepstack,
        },
        text_config={
            "vocab_size": 151936, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128,
        },
        tie_word_embeddings=width < 4096,
    )  # fmt: skip


PUBLISHED = {
    "llava-1.5": lambda: LlavaConfig(vision_config=CLIP_L_336, text_config=vicuna(32064)),
    "llava-1.5-13b": lambda: LlavaConfig(vision_config=CLIP_L_336, text_config=vicuna(32064, 5120, 13824, 40)),
    "llava-next": lambda: LlavaNextConfig(vision_config=CLIP_L_336, text_config=vicuna(32064)),
    "instructblip": lambda: InstructBlipConfig(
        qformer_config=InstructBlipQFormerConfig(vocab_size=30523), text_config=vicuna(32001), image_token_index=32000
    ),
    "minigpt4": lambda: MiniGpt4Config(text_config=vicuna(32001)),
    "qwen2.5-vl": lambda: Qwen2_5_VLConfig(
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        text_config={
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4,
        },
    ),
    "qwen3-vl": lambda: qwen3_vl(4096, 12288, 36, 32, (27, 1152, [8, 16, 24])),
    "qwen3-vl-4b": lambda: qwen3_vl(2560, 9728, 36, 32, (24, 1024, [5, 11, 17])),
    "qwen3-vl-2b": lambda: qwen3_vl(2048, 6144, 28, 16, (24, 1024, [5, 11, 17])),
    "internvl3.5": lambda: internvl(4096, 12288, 36),
    "internvl3.5-4b": lambda: internvl(2560, 9728, 36),
    "llava-onevision": lambda: one_vision(3584, 18944, 28, 28, 4),
    "llava-onevision-0.5b": lambda: one_vision(896, 4864, 24, 14, 2, 64, tied=True),
    "gemma3": lambda: gemma3(2560, 10240, 34, 8, 4, 256),
    "gemma3-12b": lambda: gemma3(3840, 15360, 48, 16, 8, 256),
    "gemma3-27b": lambda: gemma3(5376, 21504, 62, 32, 16),
    "smolvlm2": smolvlm2,
}  # fmt: skip
