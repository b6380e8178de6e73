"""LLaVA-1.5: the prompt and the pixels of OPERA's evaluation, from any folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from kvtune.errors import RequestError
from kvtune.models import get_family, load_model
from kvtune.models.families import llava as llava_module
from kvtune.models.family import OPERA_PROMPT
from kvtune.models.image_processor import pillow_image_processor

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
SPREAD = np.array([0.26862954, 0.26130258, 0.27577711])

OPERA_IDS = (
    "<s> ▁A ▁chat ▁between ▁a ▁curious ▁user ▁and ▁an ▁artificial ▁intelligence ▁ assist an t . ▁The ▁ assist an t"
    " ▁gives ▁helpful , ▁detailed , ▁and ▁polite ▁answers ▁to ▁ t he ▁user's ▁questions . USER : ▁"
    + " <image>" * 16
    + " ▁▁ Ple as e ▁ descri be ▁this ▁image ▁in ▁detail . ▁ASSISTANT :"
).split()


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_template_is_operas():
    assert get_family("llava-1.5").template == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.USER: <image> {prompt} ASSISTANT:"
    )
    assert OPERA_PROMPT == get_family("llava-1.5").default_prompt == "Please describe this image in detail."


@pytest.mark.parametrize("legacy", [True, False])
def test_the_prompts_token_ids(loaded, legacy):
    vlm = loaded("llava-1.5", legacy=legacy)
    inputs = vlm.prepare([picture(40, 30)])
    assert vlm.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == OPERA_IDS
    assert inputs["attention_mask"].all()
    places = vlm.family.visual_tokens(vlm, inputs)[0].nonzero().flatten().tolist()
    assert places == list(range(39, 55))


def test_the_token_ids_do_not_hang_on_the_tokenizers_class(checkpoint, tmp_path):
    """transformers 5 builds Llama's tokenizer anew, with other rules for spaces, where the class is named so."""
    folder = copy_of(checkpoint("llava-1.5"), tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("extra_special_tokens", None)
    for change in ({"tokenizer_class": "LlamaTokenizer", "legacy": False}, {"tokenizer_class": "LlamaTokenizerFast"}):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | change))
        vlm = load_model(folder, device="cpu")
        inputs = vlm.prepare([picture(40, 30)])
        assert vlm.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == OPERA_IDS


def copy_of(folder, target):
    for file in folder.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (336, 336), (30, 700), (1, 5), (41, 7)], ids=str)
def test_the_pixels_are_a_resized_shorter_edge_and_a_cut_centre(size):
    """The published file's settings, against Pillow and plain arithmetic."""
    image = picture(*size)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_mean=list(MEAN),
        image_std=list(SPREAD),
    )
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    width, height = size
    short = min(size)
    resized = image.resize((int(336 * width / short), int(336 * height / short)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 336) // 2, (resized.height - 336) // 2
    cut = np.asarray(resized.crop((left, top, left + 336, top + 336)), dtype=np.float64)
    expected = (cut / 255 - MEAN) / SPREAD
    torch.testing.assert_close(pixels.double(), torch.tensor(expected).permute(2, 0, 1), rtol=0, atol=1e-5)


def test_pillow_resizes_whatever_the_checkpoint_names(tmp_path):
    for stored in ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": stored}))
        assert type(pillow_image_processor(tmp_path)) is CLIPImageProcessorPil
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "OtherImageProcessor"}))
    with pytest.raises(RequestError, match="no Pillow form"):
        pillow_image_processor(tmp_path)


def test_colour_modes_become_rgb_as_pillow_converts_them(loaded):
    vlm = loaded("llava-1.5")
    colour = picture(50, 40)
    turned = colour.copy()
    turned.getexif()[0x0112] = 6  # an EXIF orientation, which the evaluations do not apply
    with_alpha = colour.copy()
    with_alpha.putalpha(128)
    for image in (colour.convert("L"), colour.convert("P"), colour.convert("CMYK"), with_alpha, turned):
        seen, expected = vlm.prepare([image])["pixel_values"], vlm.prepare([image.convert("RGB")])["pixel_values"]
        assert seen.shape == (1, 3, 28, 28) and torch.equal(seen, expected)
    assert torch.equal(vlm.prepare([turned])["pixel_values"], vlm.prepare([colour])["pixel_values"])


def test_a_fine_tune_with_another_language_model_keeps_its_own_chat_template(loaded, monkeypatch):
    vlm = loaded("llava-1.5")
    assert vlm.family.template_for(vlm) == vlm.family.template
    monkeypatch.setattr(llava_module, "is_sentencepiece", lambda tokenizer: False)
    assert vlm.family.template_for(vlm) == vlm.family.template  # ships no chat template
    monkeypatch.setattr(
        vlm.processor,
        "chat_template",
        "user {% for p in messages[0].content %}{{ p.text or '<image>' }}{% endfor %} on",
    )
    ids = vlm.prepare([picture(30, 30)], "cat")["input_ids"][0]
    tokens = vlm.tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["<s>", "▁user", "▁", *["<image>"] * 16, "▁cat", "▁on"]


def test_folders_from_before_the_processor_knew_the_patch_size(checkpoint, tmp_path):
    folder = copy_of(checkpoint("llava-1.5"), tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())
    images = settings.pop("image_processor")
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    inputs = load_model(folder, device="cpu").prepare([picture(40, 30)])
    assert int((inputs["input_ids"] == inputs["input_ids"][0, 40]).sum()) == 16


def test_folders_from_before_the_processor_counted_the_class_token(checkpoint, tmp_path):
    """transformers 4.46 to 4.48 wrote the patch size, and nothing of the tower's class token, which is cut off."""
    folder = copy_of(checkpoint("llava-1.5"), tmp_path)
    settings = json.loads((folder / "processor_config.json").read_text())
    del settings["num_additional_image_tokens"]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    inputs = load_model(folder, device="cpu").prepare([picture(40, 30)])
    assert int((inputs["input_ids"] == inputs["input_ids"][0, 40]).sum()) == 16


def test_checkpoints_in_llavas_own_format_are_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint("llava-1.5"), tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    del settings["text_config"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RequestError, match=r"own format; take the converted one \(llava-hf"):
        load_model(folder)


def test_an_image_too_narrow_to_resize_is_refused(loaded):
    with pytest.raises(RequestError, match=r"cannot take an image of 1x1500 pixels: .*1000 times; leave it out"):
        loaded("llava-1.5").prepare([picture(20, 20), picture(1, 1500)])


@pytest.mark.parametrize(("size", "blamed"), [((640, 480), False), ((4, 3000), True)])
def test_a_host_without_memory_is_no_fault_of_a_usual_image(loaded, monkeypatch, size, blamed):
    """Else every image to come would be left out."""

    def full(*arguments):
        raise MemoryError("Unable to allocate 3.00 GiB for an array")

    vlm = loaded("llava-1.5")
    monkeypatch.setattr(type(vlm.family), "prepare", full)
    with pytest.raises(RequestError if blamed else MemoryError, match="Unable to allocate"):
        vlm.prepare([picture(*size)])
