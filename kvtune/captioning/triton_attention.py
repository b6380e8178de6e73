"""What :func:`kvtune.captioning.attention.attend` computes, by one Triton kernel over the prompt and over the text.

A program takes one head of one group and some of its queries, and goes over the group's positions once, as far as the
group is long: scores never leave the chip, and a buffer with room for a long caption costs what is in it. The running
highest score is the usual online softmax; the entropy's sum follows it, because with m' = m + d

    Σ exp(s - m') (s - m') = exp(-d) (Σ exp(s - m) (s - m) - d Σ exp(s - m)).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvtune.captioning.attention import Cached, by_group, by_row
from kvtune.captioning.parts import Part, join

_QUERIES = 16
"""Queries of a program: the fewest that a matrix product of tensor cores takes."""

_POSITIONS = 64
"""Positions that a program looks at together."""


def attend(query: Tensor, prefix: Cached, suffix: Cached, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """See :func:`kvtune.captioning.attention.attend`; the output is float32 here."""
    rows, groups = len(query), len(prefix.keys)
    on_prefix = attend_part(by_group(query, groups), prefix).map(lambda grouped: by_row(grouped, rows))
    output, entropy = join(on_prefix, attend_part(query, suffix))
    return output, entropy if with_entropy else None


def attend_part(query: Tensor, cached: Cached) -> Part:
    """Attention over ``cached`` alone; ``query`` is [groups, kv_heads, queries, head_dim], scaled."""
    keys, values = cached.keys, cached.values
    groups, kv_heads, queries, head_dim = query.shape
    query = query.contiguous()
    total, weighted, highest = query.new_empty(3, groups, kv_heads, queries, 1, dtype=torch.float32)
    output = torch.empty_like(query, dtype=torch.float32)
    _attend[(groups * kv_heads, triton.cdiv(queries, _QUERIES))](
        query,
        keys,
        values,
        cached.lengths,
        highest,
        total,
        weighted,
        output,
        *keys.stride()[:3],
        *values.stride()[:3],
        queries,
        keys.shape[2],
        KV_HEADS=kv_heads,
        HEAD_DIM=head_dim,
        HEAD_BLOCK=max(16, triton.next_power_of_2(head_dim)),
        QUERIES=_QUERIES,
        POSITIONS=_POSITIONS,
    )
    return Part(highest, total, weighted, output)


@triton.jit
def _attend(
    query,
    keys,
    values,
    lengths,
    highest,
    total,
    weighted,
    output,
    key_group,
    key_head,
    key_position,
    value_group,
    value_head,
    value_position,
    n_queries,
    n_positions,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    QUERIES: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    group, head = place // KV_HEADS, place % KV_HEADS
    rows = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    columns = tl.arange(0, HEAD_BLOCK)
    in_rows, in_columns = rows < n_queries, columns < HEAD_DIM
    at = place * n_queries + rows
    in_query = in_rows[:, None] & in_columns[None, :]
    q = tl.load(query + at[:, None] * HEAD_DIM + columns[None, :], mask=in_query, other=0.0)

    most = tl.full([QUERIES], -1e30, tl.float32)
    mass = tl.zeros([QUERIES], tl.float32)
    below = tl.zeros([QUERIES], tl.float32)
    out = tl.zeros([QUERIES, HEAD_BLOCK], tl.float32)
    length = tl.minimum(tl.load(lengths + group), n_positions)
    for begin in range(0, length, POSITIONS):
        index = begin + tl.arange(0, POSITIONS)
        there = index < length
        tile = there[:, None] & in_columns[None, :]
        k_at = group * key_group + head * key_head + index[:, None] * key_position + columns[None, :]
        k = tl.load(keys + k_at, mask=tile, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where(there[None, :], s, -1e30)
        now = tl.maximum(most, tl.max(s, axis=1))
        down = most - now
        kept = tl.exp(down)
        lower = s - now[:, None]
        e = tl.where(there[None, :], tl.exp(lower), 0.0)
        below = kept * (below + down * mass) + tl.sum(tl.where(there[None, :], e * lower, 0.0), axis=1)
        mass = kept * mass + tl.sum(e, axis=1)
        most = now
        v_at = group * value_group + head * value_head + index[:, None] * value_position + columns[None, :]
        v = tl.load(values + v_at, mask=tile, other=0.0)
        out = kept[:, None] * out + tl.dot(e.to(v.dtype), v, input_precision="ieee")
    tl.store(highest + at, most, mask=in_rows)
    tl.store(total + at, mass, mask=in_rows)
    tl.store(weighted + at, below, mask=in_rows)
    tl.store(output + at[:, None] * HEAD_DIM + columns[None, :], out, mask=in_query)
