"""The plan of the grid: what it promises, and what a grid really takes."""

import pytest
import torch
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune.captioning import Captioner, CaptionRequest, memory
from kvtune.captioning import captioner as captioner_module
from kvtune.captioning.grid import Grid
from kvtune.captioning.memory import bytes_per_position, plan_grid
from kvtune.errors import RequestError


@pytest.fixture(scope="module")
def vlm():
    return small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))


def test_bytes_of_a_position_are_what_the_grid_allocates(vlm):
    grid = Grid(vlm, 3, 2)
    slots = grid.suffix_keys.shape[3]
    assert 2 * grid.suffix_keys.nbytes == 6 * slots * bytes_per_position(vlm)


@pytest.mark.parametrize(
    ("requests", "images", "lanes", "groups", "per_group"),
    [
        (256, 256, "auto", 256, 1),  # a baseline: one caption an image
        (512, 32, "auto", 32, 8),  # 16 trials: half as many lanes
        (512, 1, "auto", 1, 256),
        (6, 3, "auto", 6, 1),
        (512, 32, 16, 2, 8),
        (512, 32, 3, 1, 3),
        (1, 1, "auto", 1, 1),
    ],
)
def test_shape_follows_the_stream_of_requests(vlm, requests, images, lanes, groups, per_group):
    plan = plan_grid(vlm, 20, 64, requests, images, lanes)
    assert (plan.groups, plan.lanes) == (groups, per_group)


def test_shape_follows_the_free_memory(vlm, monkeypatch):
    ample = plan_grid(vlm, 20, 64, 512, 32)
    monkeypatch.setattr(memory, "free_memory", lambda device: (ample.prefixes + ample.suffixes) // 4)
    tight = plan_grid(vlm, 20, 64, 512, 32)
    assert 1 <= tight.groups < ample.groups
    assert tight.prefixes + tight.suffixes <= (ample.prefixes + ample.suffixes) // 4


def test_no_lanes_are_refused(vlm):
    with pytest.raises(RequestError, match="lanes must be auto or at least 1"):
        plan_grid(vlm, 20, 64, 1, 1, 0)


def test_the_plan_is_said(vlm, caplog):
    with caplog.at_level("INFO", logger=captioner_module.__name__):
        list(Captioner(vlm, max_new_tokens=2, lanes=2).run([CaptionRequest(0, random_images(1)[0])]))
    assert "decoding 1 images by 1 captions: weights" in caplog.text
