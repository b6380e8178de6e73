"""This year's families, and some that nobody named: the engine writes what generate() writes, or they are refused."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from family_runs import METHODS, STEPS, generate, pictures
from graph_like import like_a_gpu
from newer_checkpoints import IM_TEMPLATE, NEWER, packages_for_videos_stood_in_for, save_mistral3, save_qwen3_vl_moe
from PIL import Image
from visual_places import check_places

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.methods import get_method
from kvtune.methods.attach import attach
from kvtune.models import load_model
from kvtune.models.reasoning import answer_ids


def written(vlm, picture, method=None, **settings):
    """What ``generate()`` writes, up to the end of text."""
    inputs = vlm.prepare([picture])
    if method is None:
        tokens = generate(vlm, inputs, eos_token_id=vlm.eos_token_ids, **settings)[0]
    else:
        with method(vlm.hf_model):
            tokens = generate(vlm, inputs, eos_token_id=vlm.eos_token_ids, **settings)[0]
    return [token for token in tokens if token not in vlm.eos_token_ids]


def captions(vlm, methods, steps=STEPS):
    requests = [
        CaptionRequest(number, picture, method, (number, method))
        for number, picture in enumerate(pictures())
        for method in methods
    ]
    return {caption.tag: list(caption.token_ids) for caption in Captioner(vlm, max_new_tokens=steps).run(requests)}


@pytest.mark.parametrize("name", NEWER)
def test_captions_equal_generate(newer, name, monkeypatch):
    """Several images and methods in flight, in float64; also in the way in which it works on a GPU."""
    vlm, methods = newer(name), (None, *METHODS)
    expected = {
        (number, method): written(vlm, picture, method)
        for number, picture in enumerate(pictures())
        for method in methods
    }
    assert len({tuple(expected[0, method]) for method in methods}) > 1
    assert captions(vlm, methods) == expected
    like_a_gpu(monkeypatch)
    assert captions(vlm, methods) == expected


def test_pixtral_is_no_llava_but_to_transformers(tmp_path):
    folder = save_mistral3(tmp_path, kind="llava")
    with packages_for_videos_stood_in_for():
        vlm = load_model(folder, device="cpu", dtype="float64")
    assert vlm.hf_model.config.vision_config.model_type == "pixtral" and vlm.family.title == "llava"
    for number, picture in enumerate(pictures()):
        assert captions(vlm, (None,))[number, None] == written(vlm, picture)


def test_experts_are_asked_for_no_router_logits(tmp_path):
    """Qwen3-VL with experts says to its decoder whether it wants them, which changes no text."""
    vlm = load_model(save_qwen3_vl_moe(tmp_path), device="cpu", dtype="float64")
    written_here = captions(vlm, (None, METHODS[0]))
    for number, picture in enumerate(pictures()):
        for method in (None, METHODS[0]):
            assert written_here[number, method] == written(vlm, picture, method)


@pytest.mark.parametrize("name", NEWER)
def test_rows_of_one_batch_are_the_prompts_of_each_alone(newer, name):
    vlm = newer(name)
    together = vlm.family.decoder_inputs(vlm, pictures())
    for one, picture in zip(together, pictures(), strict=True):
        (alone,) = vlm.family.decoder_inputs(vlm, [picture])
        assert one.length == alone.length and torch.equal(one.visual.mask, alone.visual.mask)
        torch.testing.assert_close(one.embeddings, alone.embeddings, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NEWER)
def test_visual_tokens_are_where_the_image_enters(newer, name):
    vlm = newer(name)
    one, other = (vlm.family.decoder_inputs(vlm, [pictures(seed)[0]])[0] for seed in (0, 1))
    changed = (one.embeddings != other.embeddings).any(-1)
    assert changed.any() and not (changed & ~one.visual.mask).any()
    ends = name == "llava_onevision"  # whose lines have ends
    assert ends or torch.equal(changed, one.visual.mask)


HAVE_PLACES = ["internvl", "llava_onevision", "gemma3", "smolvlm"]


@pytest.mark.parametrize("size", [(64, 64), (100, 50), (45, 120), (300, 100)], ids=str)
@pytest.mark.parametrize("name", HAVE_PLACES)
def test_a_token_is_where_a_change_of_the_picture_changes_it(newer, name, size):
    check_places(newer(name), size)


def test_tokens_of_families_that_nobody_named_have_no_places(newer):
    for name in sorted(NEWER.keys() - HAVE_PLACES):
        vlm = newer(name)
        assert vlm.family.name == vlm.family.title == name
        (prompt,) = vlm.family.decoder_inputs(vlm, pictures()[:1])
        assert prompt.visual.places is None


def test_image_tokens_of_gemma_see_each_other(newer):
    vlm = newer("gemma3")
    (prompt,) = vlm.family.decoder_inputs(vlm, pictures()[:1])
    first, end = prompt.visual.first, prompt.visual.end
    for seen in prompt.attention.values():
        assert seen[first:end, first:end].all()
        causal = torch.ones_like(seen).tril()
        causal[first:end, first:end] = True
        assert torch.equal(seen, causal)
    assert set(prompt.attention) == {"full_attention", "sliding_attention"}


@pytest.mark.parametrize("window", [16, 60, 72])
def test_sliding_layers_are_honoured_or_refused(newer, window):
    """With ``generate()`` a window may be shorter than the prompt; the engine, which reads all, says what fits."""
    vlm, picture = newer("gemma3", window=window), pictures()[0]
    prompt = vlm.prepare([picture])["input_ids"].shape[1]
    for method in (None, METHODS[0], METHODS[2]):
        expected = by_hand(vlm, picture, method, STEPS)
        assert written(vlm, picture, method) == expected
        request = CaptionRequest(0, picture, method)
        if prompt + STEPS <= window:
            assert list(next(Captioner(vlm, max_new_tokens=STEPS).run([request])).token_ids) == expected
            continue
        cure = f"at most {window - prompt} new tokens fit" if window > prompt else "no caption fits"
        with pytest.raises(RequestError, match=f"see only the last {window} tokens .*{cure}"):
            next(Captioner(vlm, max_new_tokens=STEPS).run([request]))
        if window > prompt:
            fits = next(Captioner(vlm, max_new_tokens=window - prompt).run([request])).token_ids
            assert list(fits) == expected[: window - prompt]


def by_hand(vlm, picture, method, steps):
    """One token at a time on a cache that drops nothing, whose mask alone says what a window hides."""
    from transformers import DynamicCache

    inputs = vlm.prepare([picture])
    with attach(vlm.hf_model, [method]), torch.no_grad():
        output = vlm.hf_model.generate(
            **inputs, past_key_values=DynamicCache(), max_new_tokens=steps, eos_token_id=vlm.eos_token_ids
        )
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    return [token for token in tokens if token not in vlm.eos_token_ids]


def test_a_window_of_two_tokens_is_refused(newer):
    vlm = newer("gemma3", window=2)
    with pytest.raises(RequestError, match="a window of 2 tokens has dropped"):
        written(vlm, pictures()[0], METHODS[0])


def test_what_a_decoder_is_handed_beside_is_refused_by_name(newer, monkeypatch):
    vlm = newer("llava_onevision")
    original = vlm.hf_model.model.forward
    monkeypatch.setattr(
        vlm.hf_model.model, "forward", lambda *arguments, **keywords: original(*arguments, **keywords, vision_hint=1)
    )
    with pytest.raises(RequestError, match="hands its text decoder vision_hint, of which kvtune knows nothing"):
        captions(vlm, [None])


def test_soft_capped_scores_are_refused(newer):
    vlm = newer("paligemma", text="gemma2")
    with pytest.raises(RequestError, match="Gemma2Attention is not supported: its attention takes softcap, of which"):
        captions(vlm, [None])
    with pytest.raises(RequestError, match="its attention takes softcap"):
        written(vlm, pictures()[0], METHODS[0])


def test_methods_on_a_prompt_that_sees_itself_both_ways_are_refused(newer):
    with pytest.raises(RequestError, match="pai acts on the prompt's last tokens, and in this model these see"):
        captions(newer("paligemma"), [get_method("pai")(alpha=0.2, start_layer=0, end_layer=3)])


def test_the_template_is_asked_for_an_answer_without_thinking(newer):
    vlm = newer("internvl")
    text = vlm.tokenizer.decode(vlm.prepare(pictures()[:1], "a cat")["input_ids"][0])
    assert text.endswith("a cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_reasoning_is_cut_from_a_caption(newer, caplog):
    vlm = newer("internvl")
    encode = lambda text: vlm.tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    assert vlm.decode(encode("A cat on a mat.")) == "A cat on a mat." and not caplog.text
    assert vlm.decode(encode("<think>\nA dog?\n</think>\n\nA cat on a mat.")) == "A cat on a mat."
    assert "begins with reasoning, which is cut" in caplog.text
    assert vlm.decode(encode("x</think>y</thought> A cat.")) == "A cat."
    caplog.clear()
    assert vlm.decode(encode("<think>\nIs it a dog")) == ""
    assert "all reasoning" in caplog.text and "--max-new-tokens" in caplog.text
    assert answer_ids(vlm.tokenizer, []) == []


def test_the_image_mark_in_a_question_is_refused(newer):
    for name, mark in (("internvl", "<IMG_CONTEXT>"), ("gemma3", "<start_of_image>"), ("gemma3", "<image_soft_token>")):
        with pytest.raises(RequestError, match="must not contain the image's own token"):
            newer(name).prepare(pictures()[:1], f"What is {mark}?")


@pytest.mark.parametrize("name", NEWER)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 1), (600, 500)], ids=str)
def test_odd_images_are_captioned_or_refused_in_a_line(newer, name, size):
    vlm = newer(name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    try:
        inputs = vlm.prepare([image, pictures()[0]])
    except RequestError as error:
        assert f"cannot take an image of {size[0]}x{size[1]} pixels" in str(error) and "\n" not in str(error)
        return
    assert len(generate(vlm, inputs, max_new_tokens=2)) == 2


# What is refused, before weights are read.


def spoil(folder, **changes):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, **changes}))
    return folder


def test_a_checkpoint_without_a_chat_template_is_one_line(tmp_path):
    folder = NEWER["paligemma"](tmp_path, template=None)
    with pytest.raises(RequestError, match=r"ships no chat template.*put its template into chat_template.jinja there"):
        load_model(folder, device="cpu")
    (folder / "chat_template.jinja").write_text(IM_TEMPLATE.replace("IMAGE", "<image>"))
    assert load_model(folder, device="cpu").prepare(pictures()[:1])["input_ids"].shape[1] > 16


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("llama", "'llama' model, and none of those that transformers loads as image-text-to-text"),
        ("videomae", "'videomae' model, and none of those"),
    ],
)
def test_what_takes_no_images_is_one_line(tmp_path, kind, message):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2000)
    with pytest.raises(RequestError, match=message) as caught:
        load_model(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_code_of_its_own_is_one_line(tmp_path):
    config = {"model_type": "internvl_chat", "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match=r"whose code comes with it and is not run; .* often named -hf"):
        load_model(tmp_path, device="cpu")


def test_an_encoder_decoder_is_one_line(tmp_path):
    from transformers import Florence2Config

    Florence2Config().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2000)
    with pytest.raises(RequestError, match="is an encoder-decoder, and kvtune's methods are for decoders"):
        load_model(tmp_path, device="cpu")


def test_a_model_of_videos_alone_is_one_line(tmp_path):
    from transformers import InstructBlipVideoConfig

    InstructBlipVideoConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2000)
    with pytest.raises(RequestError, match="has no processor that takes images") as caught:
        load_model(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is here")
def test_a_processor_that_wants_torchvision_says_so(tmp_path):
    folder = NEWER["mistral3"](tmp_path)
    with pytest.raises(RequestError, match=r"PixtralProcessor needs torchvision.*pip install torchvision") as caught:
        load_model(folder, device="cpu")
    assert "\n" not in str(caught.value)
