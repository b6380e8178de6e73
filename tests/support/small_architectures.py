"""Small configurations for each architecture that is built with random weights."""

from transformers import (
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

TEXT = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def small_llava():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    return LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_id=5, image_seq_length=16)


def small_instructblip():
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(image_size=16, patch_size=8, **size),
        qformer_config=InstructBlipQFormerConfig(encoder_hidden_size=16, vocab_size=40, **size),
        text_config=LlamaConfig(**TEXT),
        num_query_tokens=6,
        image_token_index=5,
    )


SMALL = {"llava-1.5": small_llava, "llava-1.5-13b": small_llava, "instructblip": small_instructblip}
