"""A model proved: engine beside generate(), where it parts, where visual tokens are, and random weights in place."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune.captioning import model_check
from kvtune.captioning.draw_places import draw_places
from kvtune.captioning.model_check import Proof, check_model, judge, usable_methods
from kvtune.errors import RequestError
from kvtune.methods import method_names
from kvtune.models.decoder_inputs import VisualTokens
from kvtune.models.fewer_layers import TEXT_LAYERS, VISION_LAYERS, shorten
from kvtune.models.places import grid_places

IMAGES = random_images(2)


def test_a_model_is_proven_by_what_it_writes():
    vlm = small_vlm(small_llava(0, kv_heads=2))
    checked = check_model(vlm, IMAGES, max_new_tokens=12)
    assert checked.proven is True and checked.verdict.startswith("proven: ")
    assert checked.refused.keys() | {proof.method for proof in checked.proofs if proof.method} == set(method_names())
    assert {proof.image for proof in checked.proofs} == {0, 1}
    assert all(proof.first_difference is None and proof.dtype == "float64" for proof in checked.proofs)
    assert checked.visual_tokens == checked.places == 16 and checked.visual_ranges == [(1, 17)]
    assert checked.peak_gib is None and checked.tokens <= 12


def test_an_engine_that_writes_something_else_is_not_proven(monkeypatch):
    vlm = small_vlm(small_llava(0, kv_heads=2), eos=())
    original = type(vlm.family).decoder_inputs

    def shifted(*arguments):
        return [dataclasses.replace(one, next_position=one.next_position + 9) for one in original(*arguments)]

    monkeypatch.setattr(type(vlm.family), "decoder_inputs", shifted)
    checked = check_model(vlm, IMAGES, max_new_tokens=30)
    assert checked.proven is False
    assert "not proven: " in checked.verdict and " parts at token " in checked.verdict


def proof(dtype="float32", first=None, gap=None, method=None):
    return Proof(0, method, dtype, 20, first, gap)


@pytest.mark.parametrize(
    ("proofs", "proven", "words"),
    [
        ([proof(), proof(method="pai")], True, "proven: 2 of 2 captions in float32"),
        ([proof(), proof(first=3, gap=1e-5)], True, "proven: 1 of 2 .*the others part where two logits tie"),
        ([proof(), proof(first=3, gap=0.5, method="pai")], False, "image 0 under pai parts at token 3, .*0.5 apart"),
        ([proof(first=3, gap=0.5)], False, "without a method parts at token 3"),
        ([proof(first=20)], False, "parts at token 20$"),
        ([proof("bfloat16"), proof("bfloat16", 2, 0.5)], None, "1 of 2 .* in bfloat16 .*--dtype float32 does"),
        ([proof("bfloat16", 2, 0.5), proof()], True, "proven: 1 of 1 captions in float32"),
        ([proof("float64", 2, 1e-5)], False, "not proven"),
    ],
)
def test_the_verdict(proofs, proven, words):
    found, said = judge(proofs)
    assert found is proven
    assert re.search(words, said) and "\n" not in said


def test_a_method_that_cannot_serve_the_model_is_told_with_its_reason(monkeypatch):
    vlm = small_vlm(small_llava(0, kv_heads=2))
    usable, refused = usable_methods(vlm, IMAGES[0])
    assert "ad_hh" in refused and "ad_hh" not in [method.name for method in usable]

    def no(*arguments):
        raise RequestError("not on this picture")

    monkeypatch.setattr(model_check, "generated", no)
    usable, refused = usable_methods(vlm, IMAGES[0])
    assert not usable and refused["kvsmooth"] == "not on this picture"


def test_places_are_drawn_over_the_picture():
    places = torch.cat([grid_places(2, 2), torch.full((1, 2), torch.nan)])
    mask = torch.tensor([False, *[True] * 5])
    drawn = np.asarray(draw_places(Image.new("RGB", (40, 20), "white"), VisualTokens(mask, places), 400))
    assert drawn.shape == (200, 400, 3)
    coloured = (drawn != 255).any(-1)
    for x, y in ((100, 50), (300, 50), (100, 150), (300, 150)):
        assert coloured[y, x] and not coloured[y - 20, x] and not coloured[y, x + 20]
    first, last = drawn[50, 100], drawn[150, 300]
    assert first.argmax() == 2 and last.argmax() == 0  # blue, red
    with pytest.raises(RequestError, match=r"have no places .*leave --png out"):
        draw_places(Image.new("RGB", (40, 20)), VisualTokens(mask, None))


def test_a_shortened_configuration_says_the_same_of_fewer_layers():
    from transformers import Gemma3Config, LlavaConfig, Qwen3VLConfig

    gemma = Gemma3Config(text_config={"num_hidden_layers": 12})
    kinds = list(gemma.text_config.layer_types)
    shorten(gemma)
    assert gemma.text_config.num_hidden_layers == TEXT_LAYERS
    assert gemma.text_config.layer_types == kinds[:TEXT_LAYERS] and len(set(kinds[:TEXT_LAYERS])) == 2
    assert gemma.vision_config.num_hidden_layers == VISION_LAYERS
    qwen = Qwen3VLConfig()
    shorten(qwen)
    assert qwen.vision_config.depth == VISION_LAYERS
    assert list(qwen.vision_config.deepstack_visual_indexes) == [VISION_LAYERS - 1]
    llava = LlavaConfig(vision_feature_layer=-2)
    shorten(llava)
    assert llava.text_config.num_hidden_layers == TEXT_LAYERS and llava.vision_feature_layer == -2
    llava = LlavaConfig(vision_feature_layer=20)
    shorten(llava)
    assert llava.vision_feature_layer == -1
