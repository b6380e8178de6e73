"""Rotary frequencies that follow the longest position of a batch, which rows of a grid have nothing to do with."""

import numpy as np
import pytest
from graph_like import like_a_gpu
from PIL import Image
from small_models import small_llava
from small_vlms import reference_tokens, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError

LIMIT = 64
ROTARY = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0},
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "factor": 4.0,
        "original_max_position_embeddings": LIMIT,
    },
}


def vlm_of(kind):
    most = LIMIT if kind == "dynamic" else 4 * LIMIT
    model = small_llava(0, kv_heads=2, rope_parameters=ROTARY[kind], max_position_embeddings=most)
    return small_vlm(model, eos=())


def picture(text_tokens):
    """An image whose prompt has 17 tokens before so many, 1 to 5."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels[0, 0, 0] = text_tokens - 1
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ROTARY)
def test_rows_that_stand_idle_move_no_frequencies(kind):
    """The first image's row is done after two tokens, and where it would be by now the frequencies would be others."""
    vlm, method = vlm_of(kind), KVSmooth(0.5, 5, 0.3, 0, 3)
    first, other = picture(5), picture(1)
    ended = {}

    def requests():
        yield CaptionRequest(0, first, method, 0, 2)
        for n in range(1, 4):
            yield CaptionRequest(1, other, method, n, 40)
            while n not in ended:
                yield None

    for caption in Captioner(vlm, max_new_tokens=40, lanes=2).run(requests()):
        ended[caption.tag] = caption.token_ids
    assert ended.pop(0) == reference_tokens(vlm, first, method, 2)[0]
    assert set(ended.values()) == {reference_tokens(vlm, other, method, 40)[0]}


@pytest.mark.parametrize("kind", ROTARY)
def test_steps_can_be_replayed(monkeypatch, kind):
    made = like_a_gpu(monkeypatch)
    vlm, image, method = vlm_of(kind), picture(2), KVSmooth(0.5, 5, 0.3, 0, 3)
    (caption,) = Captioner(vlm, max_new_tokens=40).run([CaptionRequest(0, image, method, 0)])
    assert caption.token_ids == reference_tokens(vlm, image, method, 40)[0]
    assert made[0].replays > 30


@pytest.mark.parametrize("kind", ROTARY)
def test_what_would_pass_the_limit_is_refused(kind):
    vlm = vlm_of(kind)
    fits = Captioner(vlm, max_new_tokens=LIMIT - 18 + 1)
    (caption,) = fits.run([CaptionRequest(0, picture(1), None, 0)])
    assert caption.token_ids == reference_tokens(vlm, picture(1), None, LIMIT - 18 + 1)[0]
    refused = fits.changed(max_new_tokens=LIMIT - 18 + 2)
    with pytest.raises(RequestError, match=f"at most {LIMIT - 18 + 1} new tokens"):
        next(refused.run([CaptionRequest(0, picture(1), None, 0)]))
