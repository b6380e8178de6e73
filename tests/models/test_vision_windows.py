"""Windows of a vision tower as batches, beside transformers, which goes over them one by one."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from kvtune.models import vision_windows
from kvtune.models.families import qwen2_5_vl
from kvtune.models.vision_windows import windows_together


def pictures():
    draw = np.random.default_rng(0)
    sizes = [(52, 28), (40, 40), (52, 28), (16, 48)]
    return [Image.fromarray(draw.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prompts_are_those_of_windows_one_by_one(loaded, monkeypatch, dtype):
    vlm, images, calls = loaded("qwen2.5-vl"), pictures(), []
    vlm.hf_model.to(getattr(torch, dtype))

    def counted(module, query, *given, **named):
        calls.append(tuple(query.shape[::2]))
        return sdpa(module, query, *given, **named)

    sdpa = vision_windows.sdpa
    monkeypatch.setattr(vision_windows, "sdpa", counted)
    together = vlm.family.decoder_inputs(vlm, images)
    # Windows of a layer, and the four images of the other, two of them of one size: a call for each length.
    assert [length for _, length in calls] == [4, 8, 16, 48, 96, 100] and calls[4] == (2, 96)
    assert sum(count * length for count, length in calls[:3]) == 48 + 2 * 96 + 100 and calls[2][0] > 3
    assert vlm.hf_model.model.visual.config._attn_implementation == "sdpa"
    calls.clear()
    monkeypatch.setattr(qwen2_5_vl, "windows_together", lambda config: contextlib.nullcontext())
    for one, other in zip(together, vlm.family.decoder_inputs(vlm, images), strict=True):
        torch.testing.assert_close(one.embeddings, other.embeddings, rtol=0, atol=0)
    assert not calls


def test_another_attention_is_left_alone(loaded):
    config = loaded("qwen2.5-vl").hf_model.model.visual.config
    for name in ("eager", "sdpa"):
        config._attn_implementation = name
        with windows_together(config):
            assert (config._attn_implementation == name) == (name == "eager")
        assert config._attn_implementation == name
