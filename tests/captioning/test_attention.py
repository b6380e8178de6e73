"""Attention over prompt and text is attention over all positions at once, in one softmax."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import naive_attention, some_cached

from kvtune.captioning.attention import attend


def whole(query, prefix, suffix, lengths, scaling):
    """One softmax over all positions, row by row and head by head, written out."""
    lanes = len(query) // len(prefix.keys)
    outputs, entropies = [], []
    for row, one in enumerate(query):
        group = row // lanes
        ends = [int(of_rows[row]) for of_rows in lengths]
        keys, values = (
            torch.cat([getattr(prefix, name)[group, :, : ends[0]], getattr(suffix, name)[row, :, : ends[1]]], dim=1)
            for name in ("keys", "values")
        )
        output, entropy = naive_attention(one, keys, values, scaling)
        outputs.append(output)
        entropies.append(entropy)
    return torch.stack(outputs), torch.stack(entropies)


@st.composite
def situations(draw):
    torch.manual_seed(draw(st.integers(0, 2**31)))
    groups, lanes, kv_heads, share = (draw(st.integers(1, 3)) for _ in range(4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    query = torch.randn(groups * lanes, kv_heads, share, 8, dtype=dtype) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    prefix, on_prefix = some_cached(groups, lanes, kv_heads, draw(st.integers(1, 9)), 8, dtype)
    suffix, on_suffix = some_cached(groups * lanes, 1, kv_heads, draw(st.integers(1, 9)), 8, dtype)
    return (query, prefix, suffix), (on_prefix, on_suffix)


@settings(max_examples=80, deadline=None)
@given(situation=situations())
def test_attention_is_one_softmax_over_what_is_there(situation):
    cached, lengths = situation
    output, entropy = attend(*cached, 0.5, True)
    expected = whole(*cached, lengths, 0.5)
    tight = {"atol": 1e-5, "rtol": 1e-5} if cached[0].dtype == torch.float32 else {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(output.double(), expected[0], **tight)
    torch.testing.assert_close(entropy.double(), expected[1], **tight)
    without, none = attend(*cached, 0.5, False)
    assert none is None
    assert torch.equal(without, output)
