import pytest
import torch
from PIL import Image

from kvtune.demo import demo_model_path
from kvtune.demo.scenes import render
from kvtune.demo.small_llava import PROMPT, TEMPLATE

SCENES = 32


def test_weights_are_small_half_precision_and_of_the_size_told(demo_model):
    folder = demo_model_path()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000
    model, _ = demo_model
    assert 2_000_000 <= sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert model.config.text_config.num_hidden_layers >= 8
    assert model.config.vision_config.model_type == "clip_vision_model"


def test_tokenizer_round_trip(demo_model):
    tokenizer = demo_model[1].tokenizer
    text = "The image shows a kitchen with a red refrigerator on the left. In the background, we can see a clock."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_any_prompt_tokenises(demo_model):
    _, processor = demo_model
    text = TEMPLATE.format(prompt="Zut! Que voit-on\n(vraiment)?")
    inputs = processor(images=[Image.new("RGB", (64, 64))], text=[text], return_tensors="pt")
    assert (inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<image>")).sum() == 64
    assert (inputs["input_ids"] == processor.tokenizer.unk_token_id).any()


def test_chat_template_is_the_prompt_of_training(demo_model):
    _, processor = demo_model
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}
    assert processor.apply_chat_template([message], add_generation_prompt=True) == TEMPLATE.format(prompt=PROMPT)


@pytest.fixture(scope="module")
def captioned(demo_model):
    """(scene, greedy caption) of scenes the model was not trained on."""
    model, processor = demo_model
    scenes = [render(0, 990_000 + index) for index in range(SCENES)]
    images = [Image.fromarray(scene.pixels) for scene in scenes]
    text = [TEMPLATE.format(prompt=PROMPT)] * SCENES
    inputs = processor(images=images, text=text, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=200, do_sample=False)
    texts = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return list(zip(scenes, texts, strict=True))


def test_a_caption_is_several_sentences_and_ends(captioned):
    for _, text in captioned:
        assert text.count(".") >= 3
        assert text.endswith(".")
        assert " ." not in text
        assert text[0].isupper()
        assert len(text.split()) < 150
    assert sum(len(text.split()) for _, text in captioned) / SCENES > 40


def test_captions_name_what_is_there(captioned, mentioned):
    """Far above a caption written for another scene, and above the floor that the published figures imply."""
    right = named = there = 0
    shuffled = 0
    for index, (scene, text) in enumerate(captioned):
        present, said = {one.category for one in scene.objects}, set(mentioned(text))
        right += len(present & said)
        named += len(said)
        there += len(present)
        other = {one.category for one in captioned[(index + 1) % SCENES][0].objects}
        shuffled += len(other & said)
    assert 200 * right / (named + there) > 60
    assert right > 2.5 * shuffled


def test_captions_hallucinate_more_towards_the_end(captioned, mentioned):
    wrong = {"first": 0, "second": 0}
    for scene, text in captioned:
        present = {one.category for one in scene.objects}
        said = mentioned(text)
        half = (len(said) + 1) // 2
        wrong["first"] += sum(name not in present for name in said[:half])
        wrong["second"] += sum(name not in present for name in said[half:])
    assert wrong["second"] > wrong["first"]
