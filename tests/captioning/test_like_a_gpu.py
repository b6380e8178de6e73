"""The way the engine works on a GPU, shown right without one."""

import numpy as np
import pytest
import torch
from graph_like import RecordedStep, like_a_gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import small_llava
from small_vlms import random_images, reference_tokens, small_vlm
from test_engine import METHODS, check, requests_of, vlm

from kvtune.captioning import Captioner, CaptionRequest, memory
from kvtune.captioning.grid import Grid
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prompts import Prompts


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["grouped", "multi-head"]),
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(METHODS) - 1)), min_size=1, max_size=24),
    lanes=st.integers(1, 10),
    withdrawals=st.dictionaries(st.integers(0, 10), st.integers(0, 23), max_size=3),
)
def test_replayed_steps_and_late_tokens_change_no_caption(kind, pairs, lanes, withdrawals):
    with pytest.MonkeyPatch.context() as patch:
        like_a_gpu(patch)
        requests = requests_of(pairs)
        captioner = Captioner(vlm(kind), max_new_tokens=20, lanes=lanes)
        captions, withdrawn = [], set()
        for count, caption in enumerate(captioner.run(iter(requests))):
            captions.append(caption)
            if count in withdrawals:
                captioner.withdraw(withdrawals[count])
                withdrawn.add(withdrawals[count])
    seen = check(captions, requests, kind, 20)
    assert set(range(len(requests))) - withdrawn <= seen.keys()


@pytest.mark.parametrize("replayed", [False, True])
def test_captions_outgrow_the_suffix_that_the_grid_began_with(monkeypatch, replayed):
    made = like_a_gpu(monkeypatch) if replayed else []
    monkeypatch.setattr(memory, "_PLANNED_SLOTS", {"cpu": 64})
    model = small_vlm(small_llava(0, kv_heads=2), eos=())
    images = random_images(3)
    requests = [CaptionRequest(n, images[n], METHODS[n + 1], n, 140 + 10 * n) for n in range(3)]
    captions = {c.tag: c for c in Captioner(model, max_new_tokens=170, lanes=3).run(requests)}
    for n, request in enumerate(requests):
        assert captions[n].token_ids == reference_tokens(model, images[n], request.method, 140 + 10 * n)[0]
    assert (sum(steps.replays for steps in made) > 120) == replayed


def test_a_replay_that_meets_what_it_was_not_recorded_for_would_be_wrong():
    """The stand-in itself: it repeats what was recorded and no more."""
    state = torch.zeros(2)
    steps = 1
    with RecordedStep() as recorded:
        state += steps
    steps = 5
    recorded.replay()
    assert state.tolist() == [2, 2]
    with pytest.raises(AssertionError, match="waits for the device"), RecordedStep():
        state.sum().item()


def test_the_shape_of_a_step_changes_with_whatever_a_graph_fixes():
    model = vlm()
    images = random_images(2)
    with torch.inference_mode():
        grid = Grid(model, 2, 2)
        grid._fixed_shapes = True
        for group, prefix in enumerate(prefill(model, Prompts(model, None).of(["a", "b"], images), [None, None])):
            grid.load(group, prefix)
        shapes = []

        def shape():
            shapes.append(grid._shape(grid._spans(np.arange(4))))
            assert len(set(shapes)) == len(shapes)

        grid.start([0], [None])
        shape()
        grid.start([1], [METHODS[3]])  # a method where there was none
        shape()
        grid.start([2], [METHODS[1]])  # another range of layers, a longer queue
        shape()
        grid.start([3], [METHODS[5]])  # attention outputs
        shape()
        grid._host_slots[:] = 40  # more of the suffix is read
        shape()
