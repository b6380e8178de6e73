"""What :func:`kvtune.captioning.paged_smoothing.smooth` computes, by one Triton kernel for all layers.

A program takes some heads of one row in one layer. It reads the newest position and the one before, and writes the
newest; where the factor is 0 or the row is idle, it reads and writes nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_HEADS = 8
"""Heads of a program: with 128 numbers each, what 128 threads read in one go of 16 bytes."""


def smooth(
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    slots: Tensor,
    on_keys: Tensor,
    on_values: Tensor,
    first_layer: int,
) -> None:
    """See :func:`kvtune.captioning.paged_smoothing.smooth`; computed in float32 here.

    ``keys`` and ``values`` must be contiguous along head_dim.
    """
    n, rows = on_keys.shape
    kv_heads, size, head_dim = keys.shape[2:]
    if keys.stride(-1) != 1 or values.stride(-1) != 1:
        raise ValueError("keys and values must be contiguous along head_dim")
    if n * rows == 0:
        return
    with torch.cuda.device_of(keys):
        _smooth[(rows, n, triton.cdiv(kv_heads, _HEADS))](
            keys,
            values,
            table,
            slots,
            on_keys,
            on_values,
            first_layer,
            *keys.stride()[:4],
            *values.stride()[:4],
            *table.stride(),
            slots.stride(0),
            *on_keys.stride(),
            *on_values.stride(),
            KV_HEADS=kv_heads,
            PAGE=size,
            HEAD_DIM=head_dim,
            HEAD_BLOCK=triton.next_power_of_2(head_dim),
            HEADS=_HEADS,
            enable_fp_fusion=True,
        )


@triton.jit(do_not_specialize=["first_layer"])
def _smooth(
    keys,
    values,
    table,
    slots,
    on_keys,
    on_values,
    first_layer,
    key_layer,
    key_page,
    key_head,
    key_position,
    value_layer,
    value_page,
    value_head,
    value_position,
    table_row,
    table_entry,
    slots_row,
    on_keys_layer,
    on_keys_row,
    on_values_layer,
    on_values_row,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    HEADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    layer = tl.program_id(1).to(tl.int64)
    now = tl.load(slots + row * slots_row)
    if now > 0:
        before = now - 1
        page = tl.load(table + row * table_row + (now // PAGE) * table_entry).to(tl.int64)
        page_before = tl.load(table + row * table_row + (before // PAGE) * table_entry).to(tl.int64)
        heads = tl.program_id(2) * HEADS + tl.arange(0, HEADS)[:, None]
        columns = tl.arange(0, HEAD_BLOCK)[None, :]
        there = (heads < KV_HEADS) & (columns < HEAD_DIM)

        on = tl.load(on_keys + layer * on_keys_layer + row * on_keys_row).to(tl.float32)
        at = keys + (first_layer + layer) * key_layer + heads * key_head + columns
        new = at + page * key_page + (now % PAGE) * key_position
        _draw(new, at + page_before * key_page + (before % PAGE) * key_position, on, there)

        on = tl.load(on_values + layer * on_values_layer + row * on_values_row).to(tl.float32)
        at = values + (first_layer + layer) * value_layer + heads * value_head + columns
        new = at + page * value_page + (now % PAGE) * value_position
        _draw(new, at + page_before * value_page + (before % PAGE) * value_position, on, there)


@triton.jit
def _draw(new, before, factor, there):
    """Replace what is at ``new`` by what lies ``factor`` of the way to ``before``, as torch.lerp says it."""
    if factor != 0:
        begin = tl.load(new, mask=there, other=0.0).to(tl.float32)
        end = tl.load(before, mask=there, other=0.0).to(tl.float32)
        drawn = tl.where(factor < 0.5, begin + factor * (end - begin), end - (end - begin) * (1 - factor))
        tl.store(new, drawn.to(new.dtype.element_ty), mask=there)
