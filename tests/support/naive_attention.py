"""Attention over some positions as the formulas say it, in float64, and positions to try it on."""

import torch

from kvtune.captioning.attention import Cached
from kvtune.captioning.parts import Part


def some_cached(rows, kv_heads, longest, size, dtype=torch.float32, device="cpu"):
    """Random keys and values of different lengths, a slice of a longer buffer, as the grid hands them over."""
    keys, values = (torch.randn(rows, kv_heads, longest + 9, size, device=device).to(dtype) for _ in range(2))
    lengths = torch.randint(1, longest + 1, (rows,), device=device)
    missing = (torch.arange(longest, device=device) >= lengths[:, None])[:, None, None].to(dtype)
    return Cached(keys[:, :, :longest], values[:, :, :longest], lengths, missing * (torch.finfo(dtype).min / 2))


def naive_part(query, cached):
    """``query`` [rows, kv_heads, queries, head_dim] over ``cached`` alone."""
    scores = query.double() @ cached.keys.double().transpose(-1, -2) + cached.hidden.double()
    highest = scores.amax(-1, keepdim=True)
    terms = torch.exp(scores - highest)
    below = torch.where(terms > 0, terms * (scores - highest), 0.0)
    return Part(highest, terms.sum(-1, keepdim=True), below.sum(-1, keepdim=True), terms @ cached.values.double())
