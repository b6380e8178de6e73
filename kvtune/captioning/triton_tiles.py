"""What :func:`kvtune.captioning.paged_attention.attend_tiles` computes where methods act, without copies of pages.

One pair of kernels writes the scores of all lanes over prompts and texts, methods change them and the weights in plain
torch, and another pair sums the values. Positions that a lane does not see have a score so low that their weight is 0,
and are not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kvtune.captioning.paged_attention import Layout
from kvtune.captioning.pages import PAGE
from kvtune.captioning.triton_attention import (
    constants,
    options_for,
    queries_of_a_row,
    queries_of_a_tile,
    warps_for,
)
from kvtune.methods.acting import Acting

_ANYWHERE = ["tiles", "tile_images", "tile_lengths"]
"""Parts of tensors that may begin anywhere, for which nothing is to be built anew."""


def attend_tiles(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: Layout,
    scaling: float,
    layer: int,
    acting: Sequence[Acting],
) -> tuple[Tensor, Tensor]:
    """See :func:`kvtune.captioning.paged_attention.attend_tiles`; lanes that are none of ``acting`` have no sense."""
    kv_heads, share, head_dim = query.shape[1:]
    query = query.contiguous()
    tiles, lanes = layout.tiles.shape
    of_prompts, of_texts = (table.shape[1] * PAGE for table in (layout.prompt_table, layout.table))
    positions = of_prompts + of_texts
    shape = constants(kv_heads, share, head_dim)
    queries = queries_of_a_tile(lanes, share, query.dtype.itemsize)
    by_tile = (triton.cdiv(lanes * share, queries), tiles, kv_heads)
    options = options_for(shape["HEAD_BLOCK"], query.dtype.itemsize)
    as_tiles = {"LANES": lanes, "QUERIES": queries, **shape, "num_warps": warps_for(queries), **options}
    by_lane = (tiles * lanes, kv_heads)
    as_lanes = {"QUERIES": queries_of_a_row(share), **shape, **options}
    prompts = (
        layout.tiles,
        layout.tile_images,
        layout.tile_lengths,
        layout.prompt_table,
        layout.prompt_table.stride(0),
    )
    texts = (layout.tiles, layout.newest, layout.table, layout.table.stride(0))

    scores = query.new_empty(tiles * lanes, kv_heads * share, positions, dtype=torch.float32)
    cached = (keys, *keys.stride()[:3])
    score_prompts[by_tile](query, *cached, *prompts, scores, positions, of_prompts, scaling, **as_tiles)
    score_texts[by_lane](query, *cached, *texts, scores, positions, of_prompts, of_texts, scaling, **as_lanes)

    of_lanes = query[layout.tiles.clamp(min=0).flatten().long()].flatten(1, 2)
    weights, entropy = scores, query.new_zeros(tiles * lanes, dtype=torch.float32)
    for methods in acting:
        index = methods.index
        if index is None:  # all lanes are theirs
            weights, own_entropy = methods.attend(layer, of_lanes, scores, scaling)
            entropy = entropy if own_entropy is None else own_entropy
            break
        weights[index], own_entropy = methods.attend(layer, of_lanes[index], scores[index], scaling)
        if own_entropy is not None:
            entropy[index] = own_entropy
    weights = weights.contiguous()

    partial = query.new_empty(tiles * lanes, kv_heads * share, head_dim, dtype=torch.float32)
    output = query.new_empty(tiles * lanes, kv_heads, share, head_dim)
    cached = (values, *values.stride()[:3])
    sum_prompts[by_tile](weights, positions, *cached, *prompts[1:], partial, **as_tiles)
    sum_texts[by_lane](weights, positions, of_prompts, *cached, *texts, partial, output, **as_lanes)
    return output, entropy


@triton.jit
def _lanes_of_tile(tile, head, LANES: tl.constexpr, QUERIES: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr):
    """Of each of a program's queries the lane, the head and its place among those of all lanes; and if there is one."""
    which = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    lane = tile * LANES + which // SHARE
    of_head = head * SHARE + which % SHARE
    return lane, of_head, lane.to(tl.int64) * (KV_HEADS * SHARE) + of_head, which < LANES * SHARE


@triton.jit(do_not_specialize_on_alignment=_ANYWHERE)
def score_prompts(
    query,
    keys,
    page_stride,
    head_stride,
    position_stride,
    tiles,
    tile_images,
    tile_lengths,
    prompt_table,
    prompt_table_stride,
    scores,
    positions,
    of_prompts,
    scaling,
    LANES: tl.constexpr,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Scores of a tile's lanes over their image's prompt."""
    tile, head = tl.program_id(1), tl.program_id(2)
    lane, of_head, place, there = _lanes_of_tile(tile, head, LANES, QUERIES, KV_HEADS, SHARE)
    rows = tl.load(tiles + lane, mask=there, other=-1)
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    in_page = tl.arange(0, PAGE)
    at_query = (rows.to(tl.int64) * (KV_HEADS * SHARE) + of_head)[:, None] * HEAD_DIM + columns[None, :]
    q = tl.load(query + at_query, mask=(rows >= 0)[:, None] & in_columns[None, :], other=0.0)
    length = tl.load(tile_lengths + tile)
    table = prompt_table + tl.load(tile_images + tile) * prompt_table_stride
    to = scores + place[:, None] * positions + in_page[None, :]
    for begin in range(0, of_prompts, PAGE):
        seen = begin + in_page < length
        page = tl.load(table + begin // PAGE).to(tl.int64)
        at = page * page_stride + head * head_stride + in_page[:, None] * position_stride + columns[None, :]
        k = tl.load(keys + at, mask=seen[:, None] & in_columns[None, :], other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        tl.store(to + begin, tl.where(seen[None, :], s, -1e30), mask=there[:, None])


@triton.jit(do_not_specialize_on_alignment=_ANYWHERE)
def score_texts(
    query,
    keys,
    page_stride,
    head_stride,
    position_stride,
    tiles,
    newest,
    table,
    table_stride,
    scores,
    positions,
    of_prompts,
    of_texts,
    scaling,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Scores of a lane over its own text."""
    lane, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.load(tiles + lane)
    row = tl.maximum(member, 0).to(tl.int64)
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    in_page = tl.arange(0, PAGE)
    which = tl.arange(0, QUERIES)
    there = which < SHARE
    at_query = (row * (KV_HEADS * SHARE) + head * SHARE + which)[:, None] * HEAD_DIM + columns[None, :]
    q = tl.load(query + at_query, mask=there[:, None] & in_columns[None, :], other=0.0)
    length = tl.where(member >= 0, tl.load(newest + row) + 1, 0)
    place = lane * (KV_HEADS * SHARE) + head * SHARE + which
    to = scores + place[:, None] * positions + of_prompts + in_page[None, :]
    for begin in range(0, length, PAGE):
        seen = begin + in_page < length
        page = tl.load(table + row * table_stride + begin // PAGE).to(tl.int64)
        at = page * page_stride + head * head_stride + in_page[:, None] * position_stride + columns[None, :]
        k = tl.load(keys + at, mask=seen[:, None] & in_columns[None, :], other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        tl.store(to + begin, tl.where(seen[None, :], s, -1e30), mask=there[:, None])
    nothing = tl.full([QUERIES, PAGE], -1e30, tl.float32)
    for begin in range(tl.cdiv(length, PAGE) * PAGE, of_texts, PAGE):
        tl.store(to + begin, nothing, mask=there[:, None])


@triton.jit(do_not_specialize_on_alignment=_ANYWHERE)
def sum_prompts(
    weights,
    positions,
    values,
    page_stride,
    head_stride,
    position_stride,
    tile_images,
    tile_lengths,
    prompt_table,
    prompt_table_stride,
    partial,
    LANES: tl.constexpr,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Values of a prompt, summed with the weights of a tile's lanes."""
    tile, head = tl.program_id(1), tl.program_id(2)
    _lane, _of_head, place, there = _lanes_of_tile(tile, head, LANES, QUERIES, KV_HEADS, SHARE)
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    in_page = tl.arange(0, PAGE)
    length = tl.load(tile_lengths + tile)
    table = prompt_table + tl.load(tile_images + tile) * prompt_table_stride
    at_weights = weights + place[:, None] * positions + in_page[None, :]
    out = tl.zeros([QUERIES, HEAD_BLOCK], tl.float32)
    for begin in range(0, length, PAGE):
        seen = begin + in_page < length
        page = tl.load(table + begin // PAGE).to(tl.int64)
        at = page * page_stride + head * head_stride + in_page[:, None] * position_stride + columns[None, :]
        v = tl.load(values + at, mask=seen[:, None] & in_columns[None, :], other=0.0)
        w = tl.load(at_weights + begin, mask=there[:, None] & seen[None, :], other=0.0)
        out += tl.dot(w.to(v.dtype), v, input_precision="ieee")
    tl.store(partial + place[:, None] * HEAD_DIM + columns[None, :], out, mask=there[:, None] & in_columns[None, :])


@triton.jit(do_not_specialize_on_alignment=_ANYWHERE)
def sum_texts(
    weights,
    positions,
    of_prompts,
    values,
    page_stride,
    head_stride,
    position_stride,
    tiles,
    newest,
    table,
    table_stride,
    partial,
    output,
    QUERIES: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Values of a lane's own text, on top of those of its prompt."""
    lane, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.load(tiles + lane)
    row = tl.maximum(member, 0).to(tl.int64)
    columns = tl.arange(0, HEAD_BLOCK)
    in_columns = columns < HEAD_DIM
    in_page = tl.arange(0, PAGE)
    which = tl.arange(0, QUERIES)
    there = which < SHARE
    length = tl.where(member >= 0, tl.load(newest + row) + 1, 0)
    place = lane * (KV_HEADS * SHARE) + head * SHARE + which
    at_weights = weights + place[:, None] * positions + of_prompts + in_page[None, :]
    summed = place[:, None] * HEAD_DIM + columns[None, :]
    of_head = there[:, None] & in_columns[None, :]
    out = tl.load(partial + summed, mask=of_head, other=0.0)
    for begin in range(0, length, PAGE):
        seen = begin + in_page < length
        page = tl.load(table + row * table_stride + begin // PAGE).to(tl.int64)
        at = page * page_stride + head * head_stride + in_page[:, None] * position_stride + columns[None, :]
        v = tl.load(values + at, mask=seen[:, None] & in_columns[None, :], other=0.0)
        w = tl.load(at_weights + begin, mask=there[:, None] & seen[None, :], other=0.0)
        out += tl.dot(w.to(v.dtype), v, input_precision="ieee")
    tl.store(output + summed, out.to(output.dtype.element_ty), mask=of_head)
