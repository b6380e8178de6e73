"""Entropy and moving average against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.methods.entropy import row_entropy
from kvtune.methods.lerp import lerp_


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 4), heads=st.integers(1, 4), positions=st.integers(1, 300))
def test_entropy_is_the_mean_over_heads_of_what_the_definition_says(seed, rows, heads, positions):
    generator = torch.Generator().manual_seed(seed)
    scores = 6 * torch.randn(rows, heads, positions, generator=generator)
    scores[:, :, positions // 2 + 1 :: 3] = torch.finfo(torch.float32).min / 2  # masked
    weights = scores.softmax(-1)
    for row in range(rows):
        expected = -sum(w * math.log(w + 1e-10) for head in weights[row].double().tolist() for w in head) / heads
        assert row_entropy(weights)[row].item() == pytest.approx(expected, abs=1e-5)


def test_entropy_of_uniform_and_certain_attention():
    uniform = torch.full((1, 2, 8), 1 / 8)
    certain = torch.zeros(1, 2, 8).index_fill(2, torch.tensor([3]), 1.0)
    assert row_entropy(uniform).item() == pytest.approx(math.log(8), abs=1e-6)
    assert row_entropy(certain).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_moving_average_is_exact_at_its_ends(dtype):
    new, before = torch.randn(3, 4).to(dtype), torch.randn(3, 4).to(dtype)
    assert torch.equal(lerp_(new.clone(), before, torch.zeros(3, 1)), new)
    assert torch.equal(lerp_(new.clone(), before, torch.ones(3, 1)), before)


def test_moving_average_in_half_precision_is_rounded_once():
    new, before = torch.tensor([1.0, -2.0]).bfloat16(), torch.tensor([3.0, 5.0]).bfloat16()
    factor = torch.tensor(0.9333)
    expected = ((1 - factor) * new.float() + factor * before.float()).bfloat16()
    assert torch.equal(lerp_(new.clone(), before, factor), expected)
