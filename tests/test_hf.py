"""What is known of transformers' internals."""

import pytest
import torch
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.bench.engine.workload import Workload
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.methods import VAR


@pytest.fixture
def attended(monkeypatch):
    """Whether cuDNN's kernels might be taken, for each call of PyTorch's attention."""
    original, seen = torch.nn.functional.scaled_dot_product_attention, []

    def noting(*arguments, **named):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return original(*arguments, **named)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    return seen


IMAGES = random_images(2)


@pytest.mark.parametrize("before", [True, False])
def test_no_plan_is_made_for_every_shape(before, attended, monkeypatch):
    """cuDNN's attention makes one for each, of prompts, of vision towers, and of texts in every step of generate()."""
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        model = small_vlm(small_llava(0, kv_heads=2))
        model.hf_model.set_attn_implementation("sdpa")
        captioner = Captioner(model, max_new_tokens=3, lanes=2)
        list(captioner.run(CaptionRequest(n, image, None) for n, image in enumerate(IMAGES)))
        engine = len(attended)
        assert engine > 3  # the vision tower's layers too
        work = Workload(captioner, IMAGES)
        for method in (None, KVSmooth(0.5, start_layer=1, end_layer=2), VAR()):
            work.generate([0, 1], 2, "sdpa", method)
        assert len(attended) > 4 * engine
        assert not any(attended)
        assert torch.backends.cuda.cudnn_sdp_enabled() == before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
