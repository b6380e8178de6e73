"""Methods that remember something of every prompt position, beside prompts longer and shorter than theirs."""

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from checkpoints import save_qwen
from graph_like import like_a_gpu
from PIL import Image
from small_vlms import reference_tokens

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.methods import CLVS, DSCR, SPARC, VAR
from kvtune.models import load_model

METHODS = [
    SPARC(1.4, 0.5, 0.1, 1),
    VAR(0.5, 0.9, 0.3),
    CLVS(0.5, 0.6, 0.9),
    DSCR(0.6, 0.2, 0.6, 0.8, 0, 3, target="kv"),
]


@functools.cache
def vlm():
    with TemporaryDirectory() as folder:
        found = load_model(save_qwen(Path(folder), 3, layers=4), device="cpu", dtype="float64")
    found.processor.image_processor.size["longest_edge"] = 8 * 8 * 64
    return found


@functools.cache
def pictures():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (28, 64)]


@functools.cache
def expected(picture, method):
    return reference_tokens(vlm(), pictures()[picture], METHODS[method] if method is not None else None, 6)[0]


@pytest.mark.parametrize("on_pages", [False, True])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("method", range(len(METHODS)), ids=lambda number: METHODS[number].name)
def test_other_prompts_are_longer_or_shorter(method, order, on_pages, monkeypatch):
    if on_pages:
        like_a_gpu(monkeypatch)
    lengths = [vlm().family.decoder_inputs(vlm(), [one], None)[0].length for one in pictures()]
    assert lengths[1] > -(-lengths[0] // 32) * 32
    wanted = [(order[0], method), (order[1], None), (order[0], None)]
    requests = [
        CaptionRequest(n, pictures()[picture], METHODS[one] if one is not None else None, n)
        for n, (picture, one) in enumerate(wanted)
    ]
    captions = {caption.tag: caption.token_ids for caption in Captioner(vlm(), None, 6, lanes=4).run(requests)}
    assert [captions[n] for n in range(3)] == [expected(*one) for one in wanted]
