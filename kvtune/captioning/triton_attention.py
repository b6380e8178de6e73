"""What :func:`kvtune.captioning.paged_attention.attend` computes, by two Triton kernels: over prompts, then over texts.

The first takes one head of some rows of one image and goes over the image's prompt once for all of them. The second
takes one head of one row, begins with what the first found, goes over the row's own text, puts the newest key and value
into the cache on the way, and writes the output in the model's type and the entropy of the head's weights. Scores never
leave the chip, nothing is read of rows that stand idle, and a row is read no further than it has been written.

The running highest score is the usual online softmax; the entropy's sum follows it, because with m' = m + d

    Σ exp(s - m') (s - m') = exp(-d) (Σ exp(s - m) (s - m) - d Σ exp(s - m)).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvtune.captioning.paged_attention import Layout
from kvtune.captioning.pages import PAGE

_FEWEST_QUERIES = 16
"""The fewest rows that a matrix product of tensor cores takes."""

_MOST_QUERIES = {2: 64, 4: 16}
"""Queries of one program over a prompt, by the bytes of a number: as many as registers hold."""

_PAGE_AHEAD = 5
"""Triton's stages of a loop that copies the next page while it computes. It must know the page's number before, so that
two of four steps ahead are of one page; with three or four, nothing is copied while the loop computes."""

_MOST_OF_A_HEAD = 256
"""Bytes of a key with which two pages, the one at hand and the next, fit into the shared memory of every card."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: Layout,
    scaling: float,
    over_prompts: Mapping[str, int] = MappingProxyType({}),
    over_texts: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Tensor, Tensor]:
    """See :func:`kvtune.captioning.paged_attention.attend`; entropies are [rows, heads] here.

    ``over_prompts`` and ``over_texts`` are Triton's options for the two kernels, where they are not to be as usual:
    ``num_warps``, ``num_stages``.
    """
    rows, kv_heads, share, head_dim = query.shape
    heads = kv_heads * share
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    partial = query.new_empty(rows, heads, 3 + head_dim, dtype=torch.float32)
    output = torch.empty_like(query)
    entropy = query.new_empty(rows, heads, dtype=torch.float32)
    cache = (keys, values, *keys.stride()[:3])
    shape = constants(kv_heads, share, head_dim)
    options = options_for(shape["HEAD_BLOCK"], query.dtype.itemsize)
    tiles, lanes = layout.tiles.shape
    queries = queries_of_a_tile(lanes, share, query.dtype.itemsize)
    attend_prompts[(triton.cdiv(lanes * share, queries), tiles, kv_heads)](
        query,
        *cache,
        layout.tiles,
        layout.tile_images,
        layout.tile_lengths,
        layout.prompt_table,
        layout.prompt_table.stride(0),
        partial,
        scaling,
        LANES=lanes,
        QUERIES=queries,
        **shape,
        **{"num_warps": warps_for(queries), **options, **over_prompts},
    )
    attend_texts[(rows, kv_heads)](
        query,
        key,
        value,
        *cache,
        layout.table,
        layout.table.stride(0),
        layout.newest,
        partial,
        output,
        entropy,
        scaling,
        QUERIES=queries_of_a_row(share),
        **shape,
        **{**options, **over_texts},
    )
    return output, entropy


def constants(kv_heads: int, share: int, head_dim: int) -> dict[str, int]:
    """What both kernels are built for."""
    return {
        "KV_HEADS": kv_heads,
        "SHARE": share,
        "HEAD_DIM": head_dim,
        "HEAD_BLOCK": max(_FEWEST_QUERIES, triton.next_power_of_2(head_dim)),
        "PAGE": PAGE,
    }


def queries_of_a_tile(lanes: int, share: int, itemsize: int) -> int:
    """Queries of one program over a prompt, for numbers of ``itemsize`` bytes."""
    return min(_MOST_QUERIES[itemsize], max(_FEWEST_QUERIES, triton.next_power_of_2(lanes * share)))


def queries_of_a_row(share: int) -> int:
    """Queries of one program over a text, of which ``share`` are there."""
    return max(_FEWEST_QUERIES, triton.next_power_of_2(share))


def warps_for(queries: int) -> int:
    """Warps of a program of so many queries; with fewer, registers spill."""
    return 4 if queries <= _FEWEST_QUERIES else 8


def options_for(head_block: int, itemsize: int) -> dict[str, Any]:
    """Triton's options for a kernel that goes over pages, but for its warps."""
    return {"num_stages": stages_for(head_block, itemsize), "enable_fp_fusion": True}


def stages_for(head_block: int, itemsize: int) -> int:
    """Stages of a loop over pages, for heads of ``head_block`` numbers of so many bytes."""
    return _PAGE_AHEAD if head_block * itemsize <= _MOST_OF_A_HEAD else 3


@triton.jit
def _read(
    q,
    keys,
    values,
    page_stride,
    head_stride,
    position_stride,
    table,
    head,
    length,
    scaling,
    most,
    mass,
    below,
    out,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Go over ``length`` positions of the pages in ``table``; sums so far in, sums so far out."""
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    positions = tl.arange(0, PAGE)
    in_page = positions[:, None] * position_stride + columns[None, :]
    for begin in range(0, length, PAGE):
        page = tl.load(table + begin // PAGE).to(tl.int64)
        there = begin + positions < length
        tile = there[:, None] & in_columns[None, :]
        at = page * page_stride + head * head_stride + in_page
        k = tl.load(keys + at, mask=tile, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        s = tl.where(there[None, :], s, -1e30)
        now = tl.maximum(most, tl.max(s, axis=1))
        down = most - now
        kept = tl.exp(down)
        lower = s - now[:, None]
        e = tl.where(there[None, :], tl.exp(lower), 0.0)
        below = kept * (below + down * mass) + tl.sum(e * tl.where(there[None, :], lower, 0.0), axis=1)
        mass = kept * mass + tl.sum(e, axis=1)
        most = now
        v = tl.load(values + at, mask=tile, other=0.0)
        out = kept[:, None] * out + tl.dot(e.to(v.dtype), v, input_precision="ieee")
    return most, mass, below, out


@triton.jit
def attend_prompts(
    query,
    keys,
    values,
    page_stride,
    head_stride,
    position_stride,
    tiles,
    tile_images,
    tile_lengths,
    prompt_table,
    prompt_table_stride,
    partial,
    scaling,
    LANES: tl.constexpr,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Attention of a tile's rows over their image's prompt, unfinished: m, Σe, Σe(s-m), Σev for each row and head."""
    tile, head = tl.program_id(1), tl.program_id(2)
    which = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    lane = which // SHARE
    rows = tl.load(tiles + tile * LANES + lane, mask=lane < LANES, other=-1)
    if tl.max(rows, axis=0) < 0:  # nobody is here
        return
    there = rows >= 0
    place = rows.to(tl.int64) * (KV_HEADS * SHARE) + head * SHARE + which % SHARE
    columns = tl.arange(0, HEAD_BLOCK)
    tile_mask = there[:, None] & (columns < HEAD_DIM)[None, :]
    q = tl.load(query + place[:, None] * HEAD_DIM + columns[None, :], mask=tile_mask, other=0.0)
    image = tl.load(tile_images + tile)
    most, mass, below, out = _read(
        q,
        keys,
        values,
        page_stride,
        head_stride,
        position_stride,
        prompt_table + image * prompt_table_stride,
        head,
        tl.load(tile_lengths + tile),
        scaling,
        tl.full([QUERIES], -1e30, tl.float32),
        tl.zeros([QUERIES], tl.float32),
        tl.zeros([QUERIES], tl.float32),
        tl.zeros([QUERIES, HEAD_BLOCK], tl.float32),
        HEAD_DIM,
        HEAD_BLOCK,
        PAGE,
    )
    at = partial + place * (3 + HEAD_DIM)
    tl.store(at, most, mask=there)
    tl.store(at + 1, mass, mask=there)
    tl.store(at + 2, below, mask=there)
    tl.store(at[:, None] + 3 + columns[None, :], out, mask=tile_mask)


@triton.jit
def attend_texts(
    query,
    new_keys,
    new_values,
    keys,
    values,
    page_stride,
    head_stride,
    position_stride,
    table,
    table_stride,
    newest,
    partial,
    output,
    entropy,
    scaling,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Attention of a row over its own text, joined with what :func:`attend_prompts` left; the text grows by a token."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    which = tl.arange(0, QUERIES)
    there = which < SHARE
    place = row * (KV_HEADS * SHARE) + head * SHARE + which
    tile = there[:, None] & in_columns[None, :]
    length = tl.load(newest + row)
    if length < 0:  # idle
        tl.store(
            output + place[:, None] * HEAD_DIM + columns[None, :],
            tl.zeros([QUERIES, HEAD_BLOCK], tl.float32),
            mask=tile,
        )
        tl.store(entropy + place, tl.zeros([QUERIES], tl.float32), mask=there)
        return
    q = tl.load(query + place[:, None] * HEAD_DIM + columns[None, :], mask=tile, other=0.0)
    at = partial + place * (3 + HEAD_DIM)
    most = tl.load(at, mask=there, other=-1e30)
    mass = tl.load(at + 1, mask=there, other=0.0)
    below = tl.load(at + 2, mask=there, other=0.0)
    out = tl.load(at[:, None] + 3 + columns[None, :], mask=tile, other=0.0)
    # The newest token, which is not in the cache yet; on its way while the text is gone over.
    new_at = (row * KV_HEADS + head) * HEAD_DIM + columns
    k = tl.load(new_keys + new_at, mask=in_columns, other=0.0)
    v = tl.load(new_values + new_at, mask=in_columns, other=0.0)
    page = tl.load(table + row * table_stride + length // PAGE).to(tl.int64)
    most, mass, below, out = _read(
        q,
        keys,
        values,
        page_stride,
        head_stride,
        position_stride,
        table + row * table_stride,
        head,
        length,
        scaling,
        most,
        mass,
        below,
        out,
        HEAD_DIM,
        HEAD_BLOCK,
        PAGE,
    )
    cached_at = page * page_stride + head * head_stride + (length % PAGE) * position_stride + columns
    tl.store(keys + cached_at, k, mask=in_columns)
    tl.store(values + cached_at, v, mask=in_columns)
    s = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1) * scaling
    now = tl.maximum(most, s)
    down, lower = most - now, s - now
    kept, e = tl.exp(down), tl.exp(lower)
    below = kept * (below + down * mass) + e * lower
    mass = kept * mass + e
    out = (kept[:, None] * out + e[:, None] * v.to(tl.float32)[None, :]) / mass[:, None]
    tl.store(output + place[:, None] * HEAD_DIM + columns[None, :], out, mask=tile)
    tl.store(entropy + place, tl.log(mass) - below / mass, mask=there)
