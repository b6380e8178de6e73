"""What one card holds of the paged grid: the KV cache of its layers, where rows are, and what methods remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        self.prompt_table = torch.zeros(plan.rows, 1, dtype=torch.int32, device=self.device)
        self.classes = torch.zeros(3, plan.rows, PAGE, dtype=torch.bool, device=self.device)
        self.layout = torch.zeros(self._size(plan.rows, 2 * plan.rows), dtype=torch.int32, device=self.device)
        whole = len(card.layers) == vlm.n_layers
        self.methods = RowMethods(plan.rows + 1, decoder_of(vlm, None if whole else card.layers), self.device)

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

    def on_card(self, width: int, tiles: int) -> tuple[Layout, Tensor, Tensor]:
        """The views of what :meth:`send_layout` sent: where rows are, what they are fed, and what is to come after."""
        sizes = self._sizes(width, tiles)
        padded = self.layout[: self._size(width, tiles)].split([size + -size % _ALIGNED for size in sizes])
        newest, lanes_of_rows, forced, to_come, table, images, lengths, members = (
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
        return layout, forced, to_come

    def step(
        self, width: int, tiles: int, states: Sequence[RowState[Any]], acting: Sequence[ActingTiles]
    ) -> tuple[PagedStep, Tensor]:
        """A step of ``width`` rows in the layers of this card, and what the rows are fed."""
        layout, forced, to_come = self.on_card(width, tiles)
        to_come = torch.nn.functional.pad(to_come, (0, self._rows + 1 - width), value=-1)
        step = PagedStep(
            self.layers.start, layout, self.keys, self.values, self.kernels, states, acting, self.classes, to_come
        )
        return step, forced

    def _size(self, width: int, tiles: int) -> int:
        return sum(size + -size % _ALIGNED for size in self._sizes(width, tiles))

    def _sizes(self, width: int, tiles: int) -> list[int]:
        return [*[width] * 4, width * self._text_pages, tiles, tiles, tiles * LANES]
