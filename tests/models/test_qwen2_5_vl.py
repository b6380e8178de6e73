"""Qwen2.5-VL: its chat template, visual tokens by resolution, rotary positions on three axes."""

import json
import math

import pytest
import torch
from checkpoints import QWEN_TEMPLATE, save_qwen
from PIL import Image

from kvtune.errors import RequestError
from kvtune.models import load_model
from kvtune.models.image_processor import pillow_image_processor
from kvtune.models.prompt_ids import chat_segments

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|>{image}<|vision_end|>Please describe this image in detail.<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize("template", [QWEN_TEMPLATE, None], ids=["shipped", "none"])
def test_the_prompts_token_ids(loaded, template):
    vlm = loaded("qwen2.5-vl", template=template)
    inputs = vlm.prepare([Image.new("RGB", (48, 32))])
    assert inputs["image_grid_thw"].tolist() == [[1, 8, 12]]
    assert vlm.tokenizer.decode(inputs["input_ids"][0]) == PROMPT.format(image="<|image_pad|>" * 24)
    special = [token for token in inputs["input_ids"][0].tolist() if token < 7 and token != 5]
    assert " ".join(vlm.tokenizer.convert_ids_to_tokens(special)) == (
        "<|im_start|> <|im_end|> <|im_start|> <|vision_start|> <|vision_end|> <|im_end|> <|im_start|>"
    )
    assert torch.equal(inputs["mm_token_type_ids"].bool(), vlm.family.visual_tokens(vlm, inputs))


def test_a_chat_template_is_found_where_checkpoints_keep_it(tmp_path):
    folder = save_qwen(tmp_path, template=None)
    own = "<|image_pad|>{{ messages[0].content[1].text }}<|im_start|>"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": own}))
    assert load_model(folder, device="cpu").processor.chat_template == own
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": own + "x"}))
    assert load_model(folder, device="cpu").processor.chat_template == own + "x"
    (folder / "chat_template.jinja").write_text(own + "y")
    vlm = load_model(folder, device="cpu")
    assert vlm.tokenizer.decode(vlm.prepare([Image.new("RGB", (16, 16))], "cat")["input_ids"][0]).endswith("|>y")


def test_the_end_of_text_tokens_are_the_checkpoints(loaded):
    vlm = loaded("qwen2.5-vl")
    assert vlm.tokenizer.convert_ids_to_tokens(vlm.eos_token_ids) == ["<|im_end|>", "<|endoftext|>"]
    assert vlm.pad_token_id == vlm.tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_positions_count_text_on_all_axes_and_images_on_a_grid(loaded):
    vlm = loaded("qwen2.5-vl")
    images = [Image.new("RGB", (48, 32)), Image.new("RGB", (16, 48))]
    inputs, prompts = vlm.prepare(images), vlm.family.decoder_inputs(vlm, images)
    for row, (height, width) in enumerate([(4, 6), (6, 2)]):
        expected, place = [], 0
        for token in inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist():
            if token != vlm.hf_model.config.image_token_id:
                expected.append([place] * 3)
                place += 1
            elif not expected or len(expected[-1]) == 3:
                expected += [(place, place + i // width, place + i % width, "image") for i in range(height * width)]
                place += max(height, width)
        axes = torch.tensor([entry[:3] for entry in expected]).T
        assert torch.equal(prompts[row].positions, axes)
        assert prompts[row].next_position == place


def visual_tokens(width, height):
    """Sides rounded to 28 pixels, between 56 and 3584 squared in all; a visual token for 28 pixels square."""
    sides = [round(side / 28) for side in (width, height)]
    if sides[0] * sides[1] > 16384:
        shrink = math.sqrt(width * height / (16384 * 28**2))
        sides = [math.floor(side / shrink / 28) for side in (width, height)]
    elif sides[0] * sides[1] < 4:
        grow = math.sqrt(56**2 / (width * height))
        sides = [math.ceil(side * grow / 28) for side in (width, height)]
    return sides[0] * sides[1]


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (500, 333), (28, 28), (3, 20), (3900, 3500)])
def test_the_number_of_visual_tokens_of_the_published_geometry(tmp_path, size):
    published = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    processor = pillow_image_processor(tmp_path)
    grid = processor(Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0]
    assert grid.prod() // processor.merge_size**2 == visual_tokens(*size)
    assert visual_tokens(640, 480) == 23 * 17


def test_image_marks_in_a_question_are_refused(loaded):
    vlm = loaded("qwen2.5-vl")
    with pytest.raises(RequestError, match="must not contain the image's own token"):
        vlm.prepare([Image.new("RGB", (16, 16))], "What is <|image_pad|>?")
    assert chat_segments(vlm.tokenizer, QWEN_TEMPLATE, "<|image_pad|>", "cat")[0][-1] == 3


def test_a_fine_tune_that_names_the_image_processor_of_the_first_release_loads(tmp_path):
    folder = save_qwen(tmp_path)
    stored = json.loads((folder / "preprocessor_config.json").read_text())
    pixels = load_model(folder, device="cpu").prepare([Image.new("RGB", (50, 40), "red")])["pixel_values"]
    old = stored | {"image_processor_type": "Qwen2_5_VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    vlm = load_model(folder, device="cpu")
    assert torch.equal(vlm.prepare([Image.new("RGB", (50, 40), "red")])["pixel_values"], pixels)
