"""LLaVA-NeXT: a template for each language model, visual tokens as the image's shape asks."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tokenizers_made_here import llama_tokenizer
from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

from kvtune.models import VisionLanguageModel, get_family

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Height and width of the published checkpoints' tilings."""


def test_the_templates_are_the_model_cards():
    family = get_family("llava-next")
    assert family.template == (
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions. USER: <image>\n{prompt} ASSISTANT:"
    )
    assert family.mistral_template == "[INST] <image>\n{prompt} [/INST]"


def test_the_prompts_token_ids(loaded):
    for mistral, start, end in (
        (False, "▁ t he ▁human ' s ▁questions . ▁USER : ▁", "▁ASSISTANT :"),
        (True, "<s> ▁ [ I N S T ] ▁", "▁ [ / I N S T ]"),
    ):
        vlm = loaded("llava-next", mistral=mistral)
        assert vlm.hf_model.config.text_config.model_type == ("mistral" if mistral else "llama")
        tokens = vlm.tokenizer.convert_ids_to_tokens(vlm.prepare([Image.new("RGB", (28, 28))])["input_ids"][0])
        first, count = tokens.index("<image>"), tokens.count("<image>")
        assert set(tokens[first : first + count]) == {"<image>"}
        assert tokens[0] == "<s>" and tokens[:first][-len(start.split()) :] == start.split()
        question = "▁ <0x0A> Ple as e ▁ descri be ▁this ▁image ▁in ▁detail ."
        assert tokens[first + count :] == f"{question} {end}".split()


def test_a_checkpoint_with_chat_marks_keeps_its_own_template(loaded, monkeypatch):
    vlm = loaded("llava-next")
    vocabulary = vlm.tokenizer.get_vocab() | {"<|im_start|>": 7}
    monkeypatch.setattr(type(vlm.tokenizer), "get_vocab", lambda self: vocabulary)
    monkeypatch.setattr(vlm.processor, "chat_template", "on {{ '<image>' }} {{ messages[0].content[1].text }}")
    tokens = vlm.tokenizer.convert_ids_to_tokens(vlm.prepare([Image.new("RGB", (28, 28))], "cat")["input_ids"][0])
    assert [token for token in tokens if token != "<image>"] == ["<s>", "▁on", "▁", "▁▁", "cat"]


def visual_tokens(width, height):
    """The number that the method gives: the whole image, then the tiling without its padding, a line end a row."""

    def kept(tiling):
        scale = min(tiling[1] / width, tiling[0] / height)
        area = int(width * scale) * int(height * scale)
        used = min(area, width * height)
        return used, used - tiling[0] * tiling[1]

    rows, columns = (side // 14 for side in max(PINPOINTS, key=kept))
    if width / height > columns / rows:
        rows -= (rows - int(round(height * columns / width, 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * rows / height, 7))) // 2 * 2
    return 24 * 24 + rows * columns + rows


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 333), (336, 336), (1000, 200), (640, 427), (60, 600)])
def test_the_number_of_visual_tokens_of_the_published_geometry(size):
    tokenizer = llama_tokenizer(("<image>", "<pad>"), pad_token="<pad>")
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    config = SimpleNamespace(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        get_text_config=lambda decoder: SimpleNamespace(model_type="llama"),
    )
    hf_model = SimpleNamespace(
        config=config, generation_config=SimpleNamespace(pad_token_id=0), device=torch.device("cpu")
    )
    vlm = VisionLanguageModel(get_family("llava-next"), hf_model, processor, "", "", None)
    inputs = vlm.prepare([Image.new("RGB", size)])
    assert int(vlm.family.visual_tokens(vlm, inputs).sum()) == visual_tokens(*size) <= 2928
