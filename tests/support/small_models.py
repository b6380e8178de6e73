"""Small random models of true architectures, for tests."""

import torch
from transformers import CONFIG_MAPPING, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN = 5
EOS, PAD, BOS = 2, 0, 1
VOCABULARY = 60


def small_llava(
    seed: int = 0,
    *,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 4,
    dtype: torch.dtype = torch.float64,
    text: str = "llama",
    **text_settings: object,
) -> LlavaForConditionalGeneration:
    """A random LLaVA with 16 visual tokens, large weights (so that tokens vary) and no end-of-text habit.

    ``text`` is the ``model_type`` of its decoder.
    """
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        ),
        text_config=CONFIG_MAPPING[text](
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            **{"max_position_embeddings": 256, **text_settings},
        ),
        image_token_id=IMAGE_TOKEN,
        image_seq_length=16,
    )
    if dtype == torch.float64:
        config._experts_implementation = "batched_mm"  # the usual one takes no float64
    model = LlavaForConditionalGeneration(config).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = PAD
    return model


def llava_inputs(model: LlavaForConditionalGeneration, lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random images and prompts of the given text lengths, padded on the left, image first."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths) + 17
    ids = torch.full((len(lengths), longest), PAD)
    for row, length in enumerate(lengths):
        text = torch.randint(6, VOCABULARY, (length,), generator=generator)
        ids[row, longest - length - 17 :] = torch.cat([torch.tensor([BOS] + [IMAGE_TOKEN] * 16), text])
    pixels = torch.randn(len(lengths), 3, 16, 16, generator=generator, dtype=torch.float64).to(model.dtype)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels}
