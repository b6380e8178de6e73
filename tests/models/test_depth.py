"""Depth of what visual tokens see: means over their parts, and where maps come from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

from kvtune.demo.coco import demo_coco
from kvtune.errors import RequestError
from kvtune.models.depth import depth_maps, depth_of_places
from kvtune.models.places import grid_places


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(2, 4), patch=st.integers(1, 3), seed=st.integers(0, 999))
def test_a_token_has_the_mean_of_its_patch(rows, columns, patch, seed):
    depth = np.random.default_rng(seed).random((rows * patch, columns * patch)) * 9 - 3
    scaled = (depth - depth.min()) / (np.ptp(depth) or 1)
    expected = [
        scaled[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].mean()
        for r in range(rows)
        for c in range(columns)
    ]
    places = grid_places(rows, columns).double().numpy()
    np.testing.assert_allclose(depth_of_places(depth, places), expected, atol=1e-6)
    # The whole picture, then a finer grid of it with line ends.
    lines = np.concatenate([places.reshape(rows, columns, 2), np.full((rows, 1, 2), np.nan)], 1).reshape(-1, 2)
    found = depth_of_places(depth, np.concatenate([[[0.5, 0.5]], lines]))
    assert found[0] == pytest.approx(scaled.mean(), abs=1e-6)
    there = ~np.isnan(lines).any(1)
    assert np.isnan(found[1:][~there]).all()
    np.testing.assert_allclose(found[1:][there], expected, atol=1e-6)


def test_a_picture_of_one_depth_is_at_zero():
    assert not depth_of_places(np.full((4, 4), 7.0), grid_places(2, 2).double().numpy()).any()


def test_maps_in_a_folder(tmp_path):
    image = Image.new("RGB", (6, 4))
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.ones((6, 4)))
    np.save(tmp_path / "c.npy", np.full((4, 6), np.nan))
    (tmp_path / "d.npy").write_bytes(b"no map")
    (tmp_path / "e.npy").write_bytes((tmp_path / "c.npy").read_bytes().replace(b"'shape': (", b"'shape': 0"))
    source = depth_maps(str(tmp_path), torch.device("cpu"))
    assert source(image, tmp_path / "a.jpg")[1, 2] == 8
    refused = {
        "b": "4 x 6, but the image 6 x 4",
        "c": "one finite number",
        "d": "cannot be read",
        "e": "cannot be read",
    }
    for name, message in refused.items():
        with pytest.raises(RequestError, match=message):
            source(image, tmp_path / f"{name}.jpg")
    with pytest.raises(RequestError, match=r"no depth map f\.npy or \.png"):
        source(image, tmp_path / "f.jpg")
    with pytest.raises(RequestError, match="file names"):
        source(image, None)


def test_a_depth_estimator_of_transformers(tmp_path):
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        reshape_hidden_states=False, out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[4, 6, 8, 10], fusion_hidden_size=8,
        head_hidden_size=4, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path)
    DPTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    found = depth_maps(str(tmp_path), torch.device("cpu"))(image, None)
    assert found.shape == (20, 30) and np.isfinite(found).all() and np.ptp(found) > 0
    with pytest.raises(RequestError, match="cannot be loaded"):
        depth_maps("no/such-model", torch.device("cpu"))


def test_scenes_know_their_depth(tmp_path, monkeypatch):
    monkeypatch.setenv("KVTUNE_CACHE", str(tmp_path))
    path = min((demo_coco(2) / "val2014").glob("*.jpg"))
    depth = depth_maps("scenes", torch.device("cpu"))(Image.open(path), path)
    assert depth.shape == Image.open(path).size[::-1]
    assert depth[-1].mean() > depth[0].mean()
    with pytest.raises(RequestError, match="for the demo's scenes"):
        depth_maps("scenes", torch.device("cpu"))(Image.open(path), tmp_path / "other.jpg")
