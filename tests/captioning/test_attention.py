"""Attention in two parts is attention over all positions at once."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.captioning.attention import Positions, attend, join, stacked

KERNEL = """
import torch
from kvtune.captioning import attention, triton_attention
torch.manual_seed(0)
for dtype, atol in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
    for groups, heads, queries, size, longest in ((3, 2, 5, 32, 70), (2, 1, 17, 24, 200), (4, 2, 1, 80, 1)):
        query = torch.randn(groups, heads, queries, size).to(dtype)
        # as the grid hands them over: a slice of a longer buffer
        keys, values = (torch.randn(groups, heads, longest + 9, size).to(dtype)[:, :, :longest] for _ in range(2))
        lengths = torch.randint(1, longest + 1, (groups,))
        hidden = (torch.arange(longest) >= lengths[:, None])[:, None, None] * (torch.finfo(dtype).min / 2)
        positions = attention.Positions(lengths, hidden.to(dtype))
        expected = attention.attend(query.float(), keys.float(), values.float(), positions, True)
        got = triton_attention.attend(query, keys, values, positions, True)
        for name in ("highest", "total", "weighted", "output"):
            a, b = getattr(expected, name), getattr(got, name)
            assert a.shape == b.shape and b.dtype == torch.float32, name
            torch.testing.assert_close(b, a, atol=atol, rtol=max(atol, 1e-5), msg=lambda m: f"{name}: {m}")
        assert triton_attention.attend(query, keys, values, positions, False).weighted is None
print("equal")
"""


def whole(query, keys, values, hidden):
    """One softmax over all positions, written out."""
    scores = query @ keys.transpose(-1, -2) + hidden
    weights = torch.softmax(scores.double(), -1)
    entropy = -(weights * (weights + 1e-10).log()).sum(-1)
    return weights @ values.double(), entropy.flatten(1).mean(1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 4),
    heads=st.integers(1, 3),
    queries=st.integers(1, 3),
    lengths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_two_parts_joined_are_one_softmax(seed, rows, heads, queries, lengths, scale, dtype):
    generator = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(rows, heads, *shape, 8, dtype=dtype, generator=generator)

    query = some(queries) * scale
    parts, keys, values, masks = [], [], [], []
    for length in lengths:
        seen = torch.randint(1, length + 1, (rows,), generator=generator)
        hidden = (torch.arange(length) >= seen[:, None])[:, None, None].to(dtype) * (torch.finfo(dtype).min / 2)
        keys.append(some(length))
        values.append(some(length))
        masks.append(hidden.expand(rows, heads, queries, length))
        parts.append(attend(query, keys[-1], values[-1], Positions(seen, hidden), True))
    output, entropy = join(*parts)
    expected = whole(query, torch.cat(keys, 2), torch.cat(values, 2), torch.cat(masks, 3))
    tight = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(output.double(), expected[0], **tight)
    torch.testing.assert_close(entropy.double(), expected[1], **tight)


def test_rows_computed_apart_and_stacked_are_rows_computed_together():
    torch.manual_seed(1)
    for dtype in (torch.float32, torch.float64):
        query, keys, values = (torch.randn(4, 2, n, 8, dtype=dtype) for n in (1, 6, 6))
        lengths = torch.tensor([2, 3, 6, 5])
        hidden = (torch.arange(6) >= lengths[:, None])[:, None, None].to(dtype) * (torch.finfo(dtype).min / 2)
        other = attend(query, keys.flip(2), values, Positions(torch.full((4,), 6), None), True)
        together = attend(query, keys, values, Positions(lengths, hidden), True)
        apart = [
            attend(
                query[a:b], keys[a:b, :, :n], values[a:b, :, :n], Positions(lengths[a:b], hidden[a:b, ..., :n]), True
            )
            for a, b, n in ((0, 2, 3), (2, 4, 6))
        ]
        for one, two in zip(join(other, stacked(apart)), join(other, together), strict=True):
            torch.testing.assert_close(one, two)


def test_without_entropy_there_is_none():
    query = torch.randn(1, 1, 1, 4)
    part = attend(query, query, query, Positions(torch.ones(1), None), False)
    assert join(part, part)[1] is None


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; it comes with torch's CUDA builds")
def test_the_kernel_computes_what_plain_torch_computes():
    """In Triton's interpreter, which runs a kernel without a GPU and must be chosen before triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
