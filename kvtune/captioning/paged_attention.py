"""Attention of one new token a row over pages of the KV cache: its image's prompt, and its own text.

Rows of one image stand in tiles, whose prompt is read once for all of them, and a tile has any rows: where a row's
caption is kept has nothing to do with which image it is about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvtune.captioning.attention import Cached
from kvtune.captioning.attention import attend as attend_side_by_side
from kvtune.captioning.pages import PAGE
from kvtune.methods.acting import Acting

LANES = 16
"""Rows of a tile: as many as a matrix product of tensor cores takes at least."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the rows of a step find what is cached; whole numbers, int32.

    Attributes
    ----------
    newest
        [rows], the position of the newest token in the row's text, which begins with a copy of the last prompt token,
        or with prompt tokens that the row runs itself; -1 for a row that stands idle.
    table
        [rows, pages], the pages of each row's text; the entries of idle rows are 0.
    tiles
        [tiles, lanes], rows of one image, -1 where there is none.
    tile_images
        [tiles], the image of each, as it is counted in the prompts' table.
    tile_lengths
        [tiles], positions of each one's prompt that are read there: all but the last token, or those that the tile's
        rows run themselves.
    lanes_of_rows
        [rows], where each row stands among the tiles' lanes, 0 to tiles * lanes - 1.
    prompt_table
        [images, pages], the pages of each prompt.
    """

    newest: Tensor
    table: Tensor
    tiles: Tensor
    tile_images: Tensor
    tile_lengths: Tensor
    lanes_of_rows: Tensor
    prompt_table: Tensor

    def ending(self, first: int, pages: int | None = None) -> Layout:
        """The same with the tiles from ``first`` on alone, whose rows' texts have ``pages`` at most."""
        tiles, images, lengths = (one[first:] for one in (self.tiles, self.tile_images, self.tile_lengths))
        return dataclasses.replace(
            self, tiles=tiles, tile_images=images, tile_lengths=lengths, table=self.table[:, :pages]
        )

    def with_nobody(self) -> Layout:
        """The same with a tile more, in which nobody is."""
        nobody = (self.tiles.new_full((1, self.tiles.shape[1]), -1), *(self.tile_images.new_zeros(2)).split(1))
        tiles, images, lengths = (
            torch.cat(both) for both in zip((self.tiles, self.tile_images, self.tile_lengths), nobody, strict=True)
        )
        return dataclasses.replace(self, tiles=tiles, tile_images=images, tile_lengths=lengths)


PagedAttend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Layout, float], tuple[Tensor, Tensor]]
"""The signature of :func:`attend`."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, layout: Layout, scaling: float
) -> tuple[Tensor, Tensor]:
    """Put the new token of each row into the cache, and attend from it over prompt and text.

    Plain torch: pages are copied side by side first. What the kernels are held against, and what does without them.

    Parameters
    ----------
    query
        [rows, kv_heads, share, head_dim]; ``share`` heads read the same keys and values.
    key, value
        [rows, kv_heads, head_dim], of the new token.
    keys, values
        [pages, kv_heads, PAGE, head_dim], one layer of the cache.
    scaling
        What scores are multiplied with.

    Returns
    -------
    tuple
        The output, [rows, kv_heads, share, head_dim], and the entropy of each row's weights, natural log:
        [rows, heads], or [rows, 1] where it is the mean over heads already.
    """
    put(key, value, keys, values, layout)
    output, entropy = attend_tiles(query, keys, values, layout, scaling)
    lanes = layout.lanes_of_rows.long()
    return output[lanes].to(query.dtype), entropy[lanes, None]


def put(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, layout: Layout) -> None:
    """Write the new token of each row, [rows, kv_heads, head_dim], to its place; idle rows write into page 0."""
    newest = layout.newest.clamp(min=0).long()
    page = layout.table.gather(1, (newest // PAGE)[:, None])[:, 0].long()
    keys[page, :, newest % PAGE] = key
    values[page, :, newest % PAGE] = value


def attend_tiles(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: Layout,
    scaling: float,
    layer: int = 0,
    acting: Sequence[Acting] = (),
) -> tuple[Tensor, Tensor]:
    """Attention of all lanes of the layout's tiles, when the new tokens are in the cache.

    Returns
    -------
    tuple
        The output of each lane, [tiles * lanes, kv_heads, share, head_dim], and its entropy, [tiles * lanes]; nothing
        of sense where nobody is.
    """
    rows = layout.tiles.clamp(min=0).flatten().long()
    lanes = layout.tiles.shape[1]
    prompts = _side_by_side(keys, values, layout.prompt_table[layout.tile_images.long()], layout.tile_lengths, lanes)
    texts = _side_by_side(keys, values, layout.table[rows], layout.newest[rows] + 1)
    output, entropy = attend_side_by_side(query[rows], prompts, texts, scaling, True, layer, acting)
    assert entropy is not None
    return output, entropy


def _side_by_side(keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor, lanes: int = 1) -> Cached:
    """The pages in ``table`` [n, pages], copied into tensors [n, kv_heads, positions, head_dim]; ``lanes`` rows read
    each."""
    n, pages = table.shape
    both = [
        cache[table.flatten().long()].unflatten(0, (n, pages)).transpose(1, 2).flatten(2, 3) for cache in (keys, values)
    ]
    ahead = torch.arange(pages * PAGE, device=table.device) >= lengths.long()[:, None]
    hidden = ahead.to(keys.dtype) * (torch.finfo(keys.dtype).min / 2)
    return Cached(both[0], both[1], hidden[:, None, None].repeat_interleave(lanes, dim=0))
