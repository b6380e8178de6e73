"""DSCR's weights against loops, and that it is refused where it has no meaning."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.methods import DSCR
from kvtune.methods.decoder import Decoder
from kvtune.methods.dscr import nearness


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), lost=st.integers(0, 3), with_depth=st.booleans())
def test_weights_are_the_formula(seed, count, lost, with_depth):
    random = np.random.default_rng(seed)
    places = random.random((count + lost, 2))
    places[random.permutation(count + lost)[:lost]] = np.nan
    depth = random.random(count + lost) if with_depth else None
    method = DSCR(0.4, 0.3, 0.6, 0.8, 0, 2)
    found = nearness(method, torch.from_numpy(places), torch.from_numpy(depth) if with_depth else None)
    for j in range(count + lost):
        column = []
        for i in range(count + lost):
            if i == j or np.isnan(places[i]).any() or np.isnan(places[j]).any():
                column.append(0.0)
                continue
            apart = sum((places[i][axis] - places[j][axis]) ** 2 for axis in (0, 1))
            weight = math.exp(-apart / (2 * 0.3**2)) ** 0.8
            if with_depth:
                weight += math.exp(-((depth[i] - depth[j]) ** 2) / (2 * 0.4**2)) ** 0.6
            column.append(weight)
        total = sum(column)
        expected = [value / total for value in column] if total else [float(i == j) for i in range(count + lost)]
        np.testing.assert_allclose(found[:, j], expected, atol=1e-12)


def test_maps_are_read_once_for_each_image_and_change_captions(tmp_path, monkeypatch):
    model = small_vlm(small_llava(0, layers=4, kv_heads=2), eos=())
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for image, path in zip(random_images(3), paths, strict=True):
        image.save(path)
    folder = tmp_path / "depth"
    folder.mkdir()
    random = np.random.default_rng(0)
    for path in paths:
        np.save(folder / f"{path.stem}.npy", random.random((16, 16)).cumsum(0).astype(np.float32))
    loads = []
    original = np.load
    monkeypatch.setattr(np, "load", lambda *given, **more: loads.append(given) or original(*given, **more))
    captioner = Captioner(model, max_new_tokens=20, lanes=4)
    methods = [DSCR(0.1, 0.1, 0.6, 0.8, 0, 4), DSCR(0.1, 0.1, 0.6, 0.8, 0, 4, depth=str(folder))]
    captions = {}
    for _ in range(2):
        requests = [CaptionRequest(n, path, methods[m], (n, m)) for n, path in enumerate(paths) for m in range(2)]
        captions = {caption.tag: caption.token_ids for caption in captioner.run(requests)}
    assert len(loads) == 3
    assert any(captions[n, 0] != captions[n, 1] for n in range(3))


def test_where_it_cannot_be_served_it_is_refused():
    with pytest.raises(RequestError, match="this model's have none"):
        DSCR().check_model(Decoder(32, 8, torch.nn.Identity(), torch.nn.Identity()))
    model = small_vlm(small_llava(0, layers=4, kv_heads=2))
    inputs = model.prepare(random_images(1))
    with (
        pytest.raises(RequestError, match="no picture to take depth from"),
        DSCR(end_layer=4, start_layer=1, depth="scenes")(model.hf_model),
    ):
        model.hf_model.generate(**inputs, max_new_tokens=2)
    two = inputs | {name: torch.cat([inputs[name]] * 2, dim=1) for name in ("input_ids", "attention_mask")}
    two["pixel_values"] = torch.cat([inputs["pixel_values"]] * 2)
    with pytest.raises(RequestError, match="these have none"), DSCR(end_layer=4, start_layer=1)(model.hf_model):
        model.hf_model.generate(**two, max_new_tokens=2)
    for depth in ("", 3):
        with pytest.raises(RequestError, match="depth must be"):
            DSCR(depth=depth)
