"""Attention over prompt and text is attention over all positions at once, in one softmax or in two parts joined."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import naive_part, some_cached

from kvtune.captioning.attention import attend, by_group, by_row
from kvtune.captioning.parts import join

KERNEL = """
import torch
from kvtune.captioning.attention import attend
from kvtune.captioning.triton_attention import attend as by_kernel, attend_part
from naive_attention import naive_part, some_cached
torch.manual_seed(0)
for dtype, atol in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
    for groups, heads, queries, size, longest in ((3, 2, 5, 32, 70), (2, 1, 17, 24, 200), (4, 2, 1, 80, 1)):
        query = torch.randn(groups, heads, queries, size).to(dtype)
        cached = some_cached(groups, heads, longest, size, dtype)
        got, expected = attend_part(query, cached), naive_part(query, cached)
        for name in ("highest", "total", "weighted", "output"):
            a, b = getattr(expected, name), getattr(got, name)
            assert a.shape == b.shape and b.dtype == torch.float32, name
            torch.testing.assert_close(b, a.float(), atol=atol, rtol=max(atol, 1e-5), msg=lambda m: f"{name}: {m}")
query, prefix, suffix = torch.randn(6, 2, 3, 32), some_cached(2, 2, 40, 32), some_cached(6, 2, 9, 32)
for one, other in zip(by_kernel(query, prefix, suffix, True), attend(query, prefix, suffix, True)):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
assert by_kernel(query, prefix, suffix, False)[1] is None
print("equal")
"""


def whole(query, prefix, suffix):
    """One softmax over all positions, row by row and head by head, written out."""
    rows, kv_heads, share, _ = query.shape
    lanes = rows // len(prefix.keys)
    outputs, entropies = [], []
    for row in range(rows):
        group, entropy = row // lanes, 0.0
        for head in range(kv_heads):
            ends = int(prefix.lengths[group]), int(suffix.lengths[row])
            keys, values = (
                torch.cat([getattr(prefix, name)[group, head, : ends[0]], getattr(suffix, name)[row, head, : ends[1]]])
                for name in ("keys", "values")
            )
            for one in query[row, head]:
                weights = torch.softmax((keys @ one).double(), 0)
                entropy -= float((weights * (weights + 1e-10).log()).sum())
                outputs.append(weights @ values.double())
        entropies.append(entropy / (kv_heads * share))
    return torch.stack(outputs).view(rows, kv_heads, share, -1), torch.tensor(entropies, dtype=torch.float64)


@st.composite
def situations(draw):
    torch.manual_seed(draw(st.integers(0, 2**31)))
    groups, lanes, kv_heads, share = (draw(st.integers(1, 3)) for _ in range(4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    query = torch.randn(groups * lanes, kv_heads, share, 8, dtype=dtype) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    prefix = some_cached(groups, kv_heads, draw(st.integers(1, 9)), 8, dtype)
    return query, prefix, some_cached(groups * lanes, kv_heads, draw(st.integers(1, 9)), 8, dtype)


@settings(max_examples=80, deadline=None)
@given(situation=situations())
def test_attention_is_one_softmax_over_what_is_there(situation):
    output, entropy = attend(*situation, True)
    expected = whole(*situation)
    tight = {"atol": 1e-5, "rtol": 1e-5} if situation[0].dtype == torch.float32 else {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(output.double(), expected[0], **tight)
    torch.testing.assert_close(entropy.double(), expected[1], **tight)
    without, none = attend(*situation, False)
    assert none is None
    assert torch.equal(without, output)


@settings(max_examples=80, deadline=None)
@given(situation=situations())
def test_two_parts_joined_are_one_softmax(situation):
    query, prefix, suffix = situation
    rows, groups = len(query), len(prefix.keys)
    on_prefix = naive_part(by_group(query, groups), prefix).map(lambda grouped: by_row(grouped, rows))
    output, entropy = join(on_prefix, naive_part(query, suffix))
    expected = whole(*situation)
    tight = {"atol": 1e-5, "rtol": 1e-5} if query.dtype == torch.float32 else {"atol": 1e-8, "rtol": 1e-8}
    torch.testing.assert_close(output, expected[0], **tight)
    torch.testing.assert_close(entropy, expected[1], **tight)


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; it comes with torch's CUDA builds")
def test_the_kernel_computes_what_plain_torch_computes():
    """In Triton's interpreter, which runs a kernel without a GPU and must be chosen before triton is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
