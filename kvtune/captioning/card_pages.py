"""What one card holds of the paged grid: the KV cache of its layers, where rows are, and what methods remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.kernels import kernels_for
from kvtune.captioning.paged_attention import LANES, Layout
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.paged_step import ActingTiles, PagedStep
from kvtune.captioning.pages import PAGE
from kvtune.captioning.prefill import decoder_of
from kvtune.methods.row_methods import RowMethods
from kvtune.methods.row_state import RowState
from kvtune.methods.seen import position_classes
from kvtune.methods.sending import pinned, to_device
from kvtune.models import VisionLanguageModel
from kvtune.models.spread import Card

_ALIGNED = 4
"""Numbers of 4 bytes in whose multiples the parts of a layout begin; elsewhere Triton would build kernels anew."""


Methods = Sequence[Sequence[RowState[Any]]]
"""What methods remember that change scores or weights, by the rows that have the same."""


class StepShape(NamedTuple):
    """What a step has of everything.

    Attributes
    ----------
    width, tiles
        Rows, and tiles in which they stand.
    acting_from, acting_pages
        The first tile of rows on which methods act that change scores or weights, and how many pages of their texts are
        read.
    acting
        Lanes that are counted for each kind of these; none if all lanes of their tiles are taken for rows of one kind.
    """

    width: int
    tiles: int
    acting_from: int
    acting_pages: int
    acting: tuple[int, ...]


class CardPages:
    """Tensors of ``plan.rows`` captions and ``plan.pages`` pages, for the layers of one card.

    Attributes
    ----------
    keys, values
        [layers of the card, pages + 1, kv_heads, PAGE, head_dim]; page 0 is nobody's.
    prompt_table
        As in :class:`kvtune.captioning.paged_attention.Layout`.
    classes
        [3, images, positions] bool: which prompt tokens are before, of and after the image.
    layout
        What :meth:`send_layout` sent.
    methods
        Of the rows, and of one more, that of lanes in which nobody is.
    """

    def __init__(self, vlm: VisionLanguageModel, plan: PagedPlan, card: Card) -> None:
        self.device, self.layers = card.device, card.layers
        self._rows, self._text_pages = plan.rows, plan.text_pages
        heads, kv_heads, head_dim = vlm.heads
        shape = (len(card.layers), plan.pages + 1, kv_heads, PAGE, head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=vlm.dtype, device=self.device) for _ in range(2))
        self.kernels = kernels_for(self.device, vlm.dtype, kv_heads, heads // kv_heads, head_dim)
        self.prompt_table = torch.zeros(plan.images, 1, dtype=torch.int32, device=self.device)
        self.classes = torch.zeros(3, plan.images, PAGE, dtype=torch.bool, device=self.device)
        most = self._sizes(plan.rows, 2 * plan.rows, [LANES] * plan.rows)
        self.layout = torch.zeros(_padded(most), dtype=torch.int32, device=self.device)
        self.methods = RowMethods(plan.rows + 1, decoder_of(vlm, card.layers), self.device)

    def load(self, image: int, own: Sequence[int], keys: Tensor, values: Tensor, visual: Tensor) -> None:
        """Write a prompt's keys and values, [layers, kv_heads, positions, head_dim], into its ``own`` pages."""
        length = keys.shape[2]
        missing = len(own) - self.prompt_table.shape[1]
        if missing > 0:
            self.prompt_table = torch.nn.functional.pad(self.prompt_table, (0, missing))
            self.classes = torch.nn.functional.pad(self.classes, (0, missing * PAGE))
        pages = to_device(np.array(own), self.device)
        self.prompt_table[image, : len(own)] = pages
        classes = position_classes(visual.to(self.device))
        self.classes[:, image] = torch.nn.functional.pad(classes, (0, self.classes.shape[2] - length))
        whole, rest = divmod(length, PAGE)
        for cache, new in ((self.keys, keys), (self.values, values)):
            cache[:, pages[:whole]] = new[:, :, : whole * PAGE].unflatten(2, (whole, PAGE)).transpose(1, 2)
            if rest:
                cache[:, own[-1], :, :rest] = new[:, :, whole * PAGE :]
                cache[:, own[-1], :, rest:] = 0

    def begin(self, to_page: Tensor, from_page: Tensor, place: Tensor) -> None:
        """Copy what is at places of pages to the first place of others, where texts begin."""
        for cache in (self.keys, self.values):
            cache[:, to_page, :, 0] = cache[:, from_page, :, place].transpose(0, 1)

    def send_layout(self, parts: Sequence[np.ndarray]) -> None:
        """Tell the card where the rows of a step are: the parts of :meth:`on_card`, one after the other."""
        sent = np.concatenate([np.pad(part, (0, -len(part) % _ALIGNED)) for part in parts])
        self.layout[: len(sent)].copy_(pinned(sent, self.device), non_blocking=True)

    def on_card(
        self, width: int, tiles: int, acting: Sequence[int] = ()
    ) -> tuple[Layout, Tensor, Tensor, Sequence[Tensor]]:
        """The views of what :meth:`send_layout` sent: where rows are, what they are fed, what is to come after, and
        lanes on which methods act, as many as ``acting`` says."""
        sizes = self._sizes(width, tiles, acting)
        padded = self.layout[: _padded(sizes)].split([size + -size % _ALIGNED for size in sizes])
        newest, lanes_of_rows, forced, to_come, table, images, lengths, members, *lanes = (
            part[:size] for part, size in zip(padded, sizes, strict=True)
        )
        layout = Layout(
            newest,
            table.view(width, -1),
            members.view(tiles, LANES),
            images,
            lengths,
            lanes_of_rows,
            self.prompt_table,
        )
        return layout, forced, to_come, lanes

    def step(self, shape: StepShape, states: Sequence[RowState[Any]], acting: Methods) -> tuple[PagedStep, Tensor]:
        """A step in the layers of this card, and what its rows are fed."""
        layout, forced, to_come, lanes = self.on_card(shape.width, shape.tiles, shape.acting)
        tiles = None
        if acting:
            tiles = ActingTiles(shape.acting_from, shape.acting_pages, acting, lanes if shape.acting else None)
        to_come = torch.nn.functional.pad(to_come, (0, self._rows + 1 - shape.width), value=-1)
        step = PagedStep(
            self.layers.start, layout, self.keys, self.values, self.kernels, states, tiles, self.classes, to_come
        )
        return step, forced

    def _sizes(self, width: int, tiles: int, acting: Sequence[int]) -> list[int]:
        return [*[width] * 4, width * self._text_pages, tiles, tiles, tiles * LANES, *acting]


def _padded(sizes: Sequence[int]) -> int:
    return sum(size + -size % _ALIGNED for size in sizes)
