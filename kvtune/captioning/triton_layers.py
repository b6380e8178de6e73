"""What :mod:`kvtune.captioning.plain_layers` computes, by one Triton kernel each, rounded where it rounds."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_NUMBERS = 1024
"""Numbers that a program of :func:`silu_times` takes: 128 threads by 16 bytes of a small type."""

_HEADS = 8
"""Heads that a program of :func:`rotate` takes."""


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See :func:`kvtune.captioning.plain_layers.rms_norm`; both of one type."""
    size = hidden.shape[-1]
    rows = _with_steps_of_one(hidden.reshape(-1, size))
    normed = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    with torch.cuda.device_of(hidden):
        block = triton.next_power_of_2(size)
        _rms_norm[(len(rows),)](
            rows,
            weight,
            normed,
            epsilon,
            rows.stride(0),
            SIZE=size,
            BLOCK=block,
            num_warps=norm_warps(block),
            enable_fp_fusion=True,
        )
    return normed


def norm_warps(block: int) -> int:
    """Warps for a row of ``block`` numbers: 16 numbers a thread, where that is not too few or too many threads."""
    return min(16, max(1, block // 512))


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """See :func:`kvtune.captioning.plain_layers.silu_times`; both of one type."""
    gate, up = gate.contiguous(), up.contiguous()
    product = torch.empty_like(gate)
    with torch.cuda.device_of(gate):
        _silu_times[(triton.cdiv(gate.numel(), _NUMBERS),)](
            gate, up, product, gate.numel(), NUMBERS=_NUMBERS, enable_fp_fusion=True
        )
    return product


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`kvtune.captioning.plain_layers.rotate`; all of one type."""
    rows, query_heads, _, head_dim = query.shape
    key_heads = key.shape[1]
    query, key = _with_steps_of_one(query), _with_steps_of_one(key)
    cos, sin = (_with_steps_of_one(turn).expand(rows, 1, head_dim) for turn in (cos, sin))
    turned_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    turned_key = torch.empty(key.shape, dtype=key.dtype, device=key.device)
    with torch.cuda.device_of(query):
        _rotate[(rows, triton.cdiv(query_heads, _HEADS) + triton.cdiv(key_heads, _HEADS))](
            query,
            key,
            turned_query,
            turned_key,
            cos,
            sin,
            *query.stride()[:2],
            *key.stride()[:2],
            cos.stride(0),
            sin.stride(0),
            QUERY_HEADS=query_heads,
            KEY_HEADS=key_heads,
            HALF=head_dim // 2,
            HALF_BLOCK=triton.next_power_of_2(head_dim // 2),
            HEADS=_HEADS,
            enable_fp_fusion=False,  # for products are rounded before they are added
        )
    return turned_query, turned_key


def _with_steps_of_one(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


@triton.jit
def _rms_norm(hidden, weight, normed, epsilon, hidden_row, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    there = columns < SIZE
    x = tl.load(hidden + row * hidden_row + columns, mask=there, other=0.0)
    exact = x.to(tl.float32)
    exact = exact * tl.rsqrt(tl.sum(exact * exact, axis=0) / SIZE + epsilon)
    w = tl.load(weight + columns, mask=there, other=0.0).to(tl.float32)
    tl.store(normed + row * SIZE + columns, (w * exact.to(x.dtype).to(tl.float32)).to(x.dtype), mask=there)


@triton.jit
def _silu_times(gate, up, product, n, NUMBERS: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    there = at < n
    x = tl.load(gate + at, mask=there, other=0.0)
    exact = x.to(tl.float32)
    silu = (exact / (1 + tl.exp(-exact))).to(x.dtype).to(tl.float32)
    times = tl.load(up + at, mask=there, other=0.0).to(tl.float32)
    tl.store(product + at, (silu * times).to(x.dtype), mask=there)


@triton.jit
def _rotate(
    query,
    key,
    turned_query,
    turned_key,
    cos,
    sin,
    query_row,
    query_head,
    key_row,
    key_head,
    cos_row,
    sin_row,
    QUERY_HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    of_query = (QUERY_HEADS + HEADS - 1) // HEADS
    cos += row * cos_row
    sin += row * sin_row
    if part < of_query:
        turned_query += row * QUERY_HEADS * 2 * HALF
        _turn(query + row * query_row, query_head, turned_query, cos, sin, part, QUERY_HEADS, HALF, HALF_BLOCK, HEADS)
    else:
        turned_key += row * KEY_HEADS * 2 * HALF
        part -= of_query
        _turn(key + row * key_row, key_head, turned_key, cos, sin, part, KEY_HEADS, HALF, HALF_BLOCK, HEADS)


@triton.jit
def _turn(
    x,
    head_step,
    turned,
    cos,
    sin,
    part,
    N_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Turn some heads of one row."""
    heads = part * HEADS + tl.arange(0, HEADS)[:, None]
    columns = tl.arange(0, HALF_BLOCK)[None, :]
    in_half = columns < HALF
    there = (heads < N_HEADS) & in_half
    first = tl.load(x + heads * head_step + columns, mask=there, other=0.0)
    second = tl.load(x + heads * head_step + HALF + columns, mask=there, other=0.0)
    first_cos = tl.load(cos + columns, mask=in_half, other=0.0)
    second_cos = tl.load(cos + HALF + columns, mask=in_half, other=0.0)
    first_sin = tl.load(sin + columns, mask=in_half, other=0.0)
    second_sin = tl.load(sin + HALF + columns, mask=in_half, other=0.0)
    turned += heads * 2 * HALF + columns
    tl.store(turned, (_times(first, first_cos) - _times(second, first_sin)).to(first.dtype), mask=there)
    tl.store(turned + HALF, (_times(second, second_cos) + _times(first, second_sin)).to(first.dtype), mask=there)


@triton.jit
def _times(one, other):
    """A product as float32, rounded to the type of its factors."""
    return (one.to(tl.float32) * other.to(tl.float32)).to(one.dtype).to(tl.float32)
