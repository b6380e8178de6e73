"""A device of too little memory, wherever that shows: the grid gets smaller and no caption is lost or written twice."""

import functools
import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from failing_device import cuda_error
from graph_like import like_a_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_memory import LimitedMemory
from small_models import small_llava
from small_vlms import random_images, reference_tokens, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest, captioner, decoding, group_decoding, paged_decoding
from kvtune.captioning import prompts as prompts_module
from kvtune.captioning.fused import FusedLayers
from kvtune.captioning.grid import Grid
from kvtune.captioning.kernels import built_or
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.device_errors import is_out_of_memory
from kvtune.errors import KvtuneError

IMAGES = random_images(4)
METHODS = [None, KVSmooth(0.9, 15, 0.2, 1, 3), KVSmooth(0.5, 3, 0.5, 0, 3)]
MODEL = small_vlm(small_llava(0, kv_heads=2))


@functools.cache
def expected(image, method, limit):
    return reference_tokens(MODEL, IMAGES[image], METHODS[method], limit)


def requests(limits):
    return [
        CaptionRequest(n % 4, IMAGES[n % 4], METHODS[n % 3], tag=n, max_new_tokens=limit)
        for n, limit in enumerate(limits)
    ]


def check(captions, limits):
    assert sorted(caption.tag for caption in captions) == list(range(len(limits)))
    for caption in captions:
        n = caption.tag
        assert (caption.token_ids, caption.finish_reason) == expected(n % 4, n % 3, limits[n])


@functools.cache
def ample():
    """The most that 24 captions take at a time."""
    with LimitedMemory() as device:
        limits = [20] * 24
        check(list(Captioner(MODEL, max_new_tokens=20, lanes=16).run(requests(limits))), limits)
    return device.peak


def test_a_smaller_grid_is_made_only_when_the_larger_one_is_gone(caplog):
    """The device has room for a little more than half of the planned grid, never for both."""
    limits = [20] * 24
    with LimitedMemory(int(0.6 * ample())) as device:
        check(list(Captioner(MODEL, max_new_tokens=20, lanes=16).run(requests(limits))), limits)
    assert device.refusals == 1
    assert caplog.text.count("out of device memory: going on with") == 1


def test_a_smaller_grid_is_made_without_what_an_error_holds_of_the_larger_one(monkeypatch):
    """Whoever fails may keep his error in a variable, and the two hold each other until garbage is collected."""
    there, before = weakref.WeakSet(), []

    def make(*given):
        before.append(len(there))
        there.add(grid := Grid(*given))
        return grid

    def step(grid, running):
        if len(before) == 1:
            error = torch.OutOfMemoryError("out of memory")
            raise error
        return plain(grid, running)

    plain = Grid.step
    monkeypatch.setattr(group_decoding, "Grid", make)
    monkeypatch.setattr(Grid, "step", step)
    limits = [5] * 24
    gc.disable()
    try:
        check(list(Captioner(MODEL, max_new_tokens=5, lanes=16).run(requests(limits))), limits)
    finally:
        gc.enable()
    assert before == [0, 0]


def test_requests_that_come_as_memory_runs_out_are_not_lost(monkeypatch):
    """As where a method's depth estimator is loaded for them."""
    checked, plain = [], Captioner.check

    def check_method(captioner, method):
        checked.append(method)
        if len(checked) == 6:
            raise torch.OutOfMemoryError("out of memory")
        plain(captioner, method)

    monkeypatch.setattr(captioner, "LOOK_AHEAD", 4)
    monkeypatch.setattr(Captioner, "check", check_method)
    limits = [5] * 24
    check(list(Captioner(MODEL, max_new_tokens=5, lanes=2).run(requests(limits))), limits)
    assert len(checked) > 6


def test_a_grid_that_is_kept_gives_way_to_images_that_need_its_memory(monkeypatch):
    like_a_gpu(monkeypatch)
    made, make = weakref.WeakSet(), PagedGrid

    def noted(*given):
        made.add(grid := make(*given))
        return grid

    monkeypatch.setattr(paged_decoding, "PagedGrid", noted)
    limits = [5] * 24
    captioner = Captioner(MODEL, max_new_tokens=5, lanes=4)
    check(list(captioner.run(requests(limits))), limits)
    gone, plain = [], captioner.prompts_of

    def prompts_of(some):
        gone.append(not made)
        if not any(gone):
            raise torch.OutOfMemoryError("no memory beside the grid")
        return plain(some)

    monkeypatch.setattr(captioner, "prompts_of", prompts_of)
    check(list(captioner.run(requests(limits))), limits)
    assert gone[:2] == [False, True]


def test_where_pinned_memory_is_out_no_more_prompts_are_kept_and_the_grid_stays(monkeypatch, caplog):
    """Memory of the host it is, of which a smaller grid takes no less."""
    left = [3]

    def leaving(tensor):
        left[0] -= 1
        if left[0] < 0:
            raise cuda_error("out of memory")
        return tensor.clone()

    monkeypatch.setattr(prompts_module, "leaving", leaving)
    limits = [5] * 24
    captioner = Captioner(MODEL, max_new_tokens=5, lanes=4)
    check(list(captioner.run(requests(limits))), limits)
    check(list(captioner.run(requests(limits))), limits)
    assert left[0] < 0 and "out of device memory" not in caplog.text


@pytest.mark.parametrize("share", [0.9, 0.4, 0.2])
def test_every_size_of_device_that_holds_a_caption_will_do(share):
    limits = [20] * 24
    with LimitedMemory(int(share * ample())) as device:
        check(list(Captioner(MODEL, max_new_tokens=20, lanes=16).run(requests(limits))), limits)
    assert device.refusals > 0
    assert device.live == 0


def test_a_device_too_small_for_one_caption_is_said():
    with pytest.raises(KvtuneError, match="single caption"), LimitedMemory(20_000):
        list(Captioner(MODEL, max_new_tokens=20, lanes=16).run(requests([20] * 4)))


@settings(max_examples=25, deadline=None)
@given(
    limits=st.lists(st.sampled_from([1, 2, 9]), min_size=1, max_size=16),
    lanes=st.integers(2, 8),
    refused=st.sets(st.tuples(st.sampled_from(["make", "prefill", "step"]), st.integers(0, 6)), max_size=2),
    paged=st.booleans(),
)
def test_refused_at_any_moment(limits, lanes, refused, paged):
    """A caption may be done with its first token in the very step that fails."""
    counts = {"make": 0, "prefill": 0, "step": 0}
    sizes = []
    packed = Grid.packed

    def refusing(name, function):
        def run(*arguments):
            if name == "make":
                sizes.append(arguments[1].rows if paged else arguments[1] * arguments[2])
            counts[name] += 1
            if (name, counts[name] - 1) in refused:
                raise torch.OutOfMemoryError(name)
            return function(*arguments)

        return run

    with pytest.MonkeyPatch.context() as patch:
        if paged:
            like_a_gpu(patch)
            patch.setattr(paged_decoding, "PagedGrid", refusing("make", PagedGrid))
            patch.setattr(PagedGrid, "step", refusing("step", PagedGrid.step))
        patch.setattr(group_decoding, "Grid", refusing("make", Grid))
        patch.setattr(decoding, "prefill", refusing("prefill", decoding.prefill))
        patch.setattr(Grid, "step", refusing("step", Grid.step))
        patch.setattr(Grid, "packed", lambda self, order, lanes: sizes.append(len(order)) or packed(self, order, lanes))
        try:
            captions = list(Captioner(MODEL, max_new_tokens=9, lanes=lanes).run(requests(limits)))
        except KvtuneError:
            assert sizes[-1] <= (3 if paged else 1)  # half of the pages may not hold a caption any more
            return
    check(captions, limits)


def test_what_a_processor_says_when_memory_is_out_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    for words in (
        "CUDA error: out of memory\nCUDA kernel errors",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Triton Error [CUDA]: out of memory",
        "CUDA driver error: out of memory",
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1165, please report',
    ):
        assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    ],
)
def test_a_kernel_is_not_said_to_be_unbuildable_where_the_device_is_to_blame(error):
    """A smaller grid has room for it, where plain torch would be taken for good; and nothing runs on a lost one."""

    def build(*arguments):
        raise error

    with pytest.raises(type(error)):
        built_or(None, "attention", build)
    decoder = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32)).decoder
    kernels = SimpleNamespace(rms_norm=build, silu_times=build, rotate=build)
    with pytest.raises(type(error)):
        FusedLayers(decoder, torch.device("cpu"), kernels)
