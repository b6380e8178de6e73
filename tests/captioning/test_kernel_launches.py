"""What the engine launches on a GPU, bound and built for one by Triton itself and not run."""

import pytest
import torch
from engine_requests import METHODS
from graph_like import like_a_gpu
from kernel_launches import launches
from small_models import small_llava
from small_vlms import random_images, small_vlm
from triton_without_gpu import needs_triton

from kvtune.bench.engine.kernels import Shape, Situation
from kvtune.captioning import Captioner, CaptionRequest, captioner, fused, paged_grid, prefill
from kvtune.captioning.kernels import Kernels, try_on_one_row

pytestmark = needs_triton
CPU = torch.device("cpu")


def kernels():
    from kvtune.captioning import triton_attention, triton_smoothing

    return Kernels(triton_attention.attend, triton_smoothing.smooth)


def builds(made):
    return {(name, build) for name, _, build in made}


def test_a_trial_builds_what_steps_launch():
    """A kernel built anew takes seconds, in the middle of the first step."""
    situation = Situation.of(Shape(40, 2, 1, 16), torch.bfloat16, CPU)
    with launches() as tried:
        try_on_one_row(kernels(), CPU, torch.bfloat16, 2, 1, 16)
    with launches() as made:
        situation.attend(kernels())
        situation.smooth(kernels())
    assert len(made) == 3
    assert builds(made) == builds(tried)


def test_each_kernel_is_built_once_for_all_steps(monkeypatch):
    """Whatever their widths and methods: the engine's own tensors, of which nothing is computed."""

    def tokens(logits):
        return torch.ones(len(logits), dtype=torch.long)

    def layers(decoder, device):
        from kvtune.captioning import triton_layers

        return fused.FusedLayers(decoder, device, triton_layers)

    like_a_gpu(monkeypatch)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda device: None)
    monkeypatch.setattr(paged_grid, "kernels_for", lambda *given: kernels())
    monkeypatch.setattr(captioner, "FusedLayers", layers)
    monkeypatch.setattr(fused._Parts, "_try", lambda *given: True)
    monkeypatch.setattr(paged_grid, "choose", tokens)
    monkeypatch.setattr(prefill, "choose", tokens)
    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.bfloat16), eos=())
    images = random_images(3)
    requests = [CaptionRequest(n, images[n % 3], METHODS[n % 9], n, 3 + 5 * (n % 3)) for n in range(14)]
    with launches() as made:
        assert len(list(Captioner(model, max_new_tokens=40, lanes=7).run(requests))) == 14
    assert len({grid for _, grid, _ in made}) > 10
    names = [name for name, _ in builds(made)]
    assert sorted(names) == ["_rms_norm", "_rotate", "_silu_times", "_smooth", "attend_prompts", "attend_texts"]
