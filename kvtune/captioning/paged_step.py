"""One decode step of the paged grid, as the attention function of each layer and methods at its end see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvtune.captioning.decoding import on_device
from kvtune.captioning.kernels import Kernels
from kvtune.captioning.paged_attention import Layout
from kvtune.methods.acting import Acting
from kvtune.methods.row_state import RowState
from kvtune.methods.seen import SeenPositions


@dataclasses.dataclass(frozen=True)
class ActingTiles:
    """The tiles of rows whose methods change scores or weights.

    Attributes
    ----------
    first
        The first of them; they are the last ones of a step.
    pages
        As many as a text of their rows has at most.
    methods
        Those of the rows, by the rows that have the same.
    lanes
        As many for each of ``methods``: where their rows stand among the lanes of these tiles, int32, filled up with
        the lane after the last one; None if all lanes of the tiles are taken for rows of one kind.
    """

    first: int
    pages: int
    methods: Sequence[Sequence[RowState[Any]]]
    lanes: Sequence[Tensor] | None


class PagedStep:
    """What the layers of one step share, on one card; each leaves its new keys and values in the pages.

    The states of methods have one row more than the grid: that of lanes in which nobody is.

    Parameters
    ----------
    first_layer
        The first of the layers on this card.
    keys, values
        The cache of its layers, [layers, pages, kv_heads, PAGE, head_dim].
    states
        What the methods of the rows remember.
    acting
        Where those of them act that change scores or weights; None if there are none.
    classes
        [3, images, positions] bool: which prompt tokens are before, of and after the image.
    to_come
        [rows of the grid + 1], as in :class:`kvtune.methods.seen.Seen`.
    """

    def __init__(
        self,
        first_layer: int,
        layout: Layout,
        keys: Tensor,
        values: Tensor,
        kernels: Kernels,
        states: Sequence[RowState[Any]],
        acting: ActingTiles | None,
        classes: Tensor,
        to_come: Tensor,
    ) -> None:
        self._to_come = to_come
        self.first_layer, self.states = first_layer, states
        self.generated = to_come < 0
        self._layout, self._keys, self._values, self._kernels = layout, keys, values, kernels
        self._entropies: dict[int, Tensor] = {}
        self._looked_at = {layer for state in states if state.reads_entropy for layer in state.layers}
        self._on_output = [state for state in states if state.changes_output]
        self._acting: list[Acting] = []
        self._changed: dict[tuple[int, ...], Tensor] = {}
        if acting is not None:
            self._see(acting, classes)

    def _see(self, acting: ActingTiles, classes: Tensor) -> None:
        """Find what each kind of methods sees."""
        tiles = self._layout.ending(acting.first, acting.pages)
        if acting.lanes is not None:
            tiles = tiles.with_nobody()
        self._tiles, per_tile = tiles, tiles.tiles.shape[1]
        lanes = self._layout.lanes_of_rows.long() - acting.first * per_tile
        self._theirs, self._lanes = lanes >= 0, lanes.clamp(min=0)
        members = tiles.tiles.flatten().long()
        rows = torch.where(members < 0, len(self.generated) - 1, members)
        images, read = (one.long().repeat_interleave(per_tile) for one in (tiles.tile_images, tiles.tile_lengths))
        for number, states in enumerate(acting.methods):
            index = None if acting.lanes is None else acting.lanes[number].long()
            own, seen_images, own_read = (one if index is None else one[index] for one in (rows, images, read))
            seen = SeenPositions(own, classes[:, seen_images], own_read, self._to_come[own])
            self._acting.append(Acting(states, seen, index))

    def _changed_by(self, acting: Sequence[Acting]) -> Tensor:
        """[rows] bool: whose attention these change."""
        key = tuple(map(id, acting))
        if key not in self._changed:
            changed = self._theirs
            if acting[0].index is not None:
                of_lanes = changed.new_zeros(self._tiles.tiles.numel())
                for one in acting:
                    of_lanes[one.index] = True
                changed = changed & of_lanes[self._lanes]
            self._changed[key] = changed
        return self._changed[key]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer; shapes as in :class:`kvtune.captioning.grid_attention.Step`."""
        rows, heads, _, head_dim = query.shape
        kv_heads = key.shape[1]
        query = query.reshape(rows, kv_heads, heads // kv_heads, head_dim)
        new = key[:, :, 0], value[:, :, 0]
        cache = self._keys[layer - self.first_layer], self._values[layer - self.first_layer]
        output, entropy = self._kernels.attend(query, *new, *cache, self._layout, scaling)
        entropy = entropy.mean(-1)
        if acting := [one for one in self._acting if one.changes(layer)]:
            acted, own_entropy = self._kernels.attend_tiles(query, *cache, self._tiles, scaling, layer, acting)
            changed = self._changed_by(acting)
            output = torch.where(changed[:, None, None, None], acted[self._lanes].to(output.dtype), output)
            entropy = torch.where(changed, own_entropy[self._lanes].to(entropy.dtype), entropy)
        output = output.view(rows, heads, head_dim)
        if layer in self._looked_at:
            self._entropies[layer] = entropy
            for state in self._on_output:
                if layer in state.layers:
                    padded, entropies = self._padded(output, rows), self._padded(entropy, rows)
                    output = state.change_output(layer, padded, entropies, self.generated)[:rows]
        return output[:, None]

    def _padded(self, of_rows: Tensor, rows: int) -> Tensor:
        """Tensors of a step's rows as those of all rows of the states."""
        return torch.nn.functional.pad(of_rows, (0, 0) * (of_rows.ndim - 1) + (0, len(self.generated) - rows))

    def entropies(self, layers: range) -> Tensor:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        entropy = torch.stack([self._entropies[layer] for layer in layers])
        return torch.nn.functional.pad(entropy, (0, len(self.generated) - entropy.shape[1]))

    def draw(self, layers: range, on_keys: Tensor, on_values: Tensor) -> None:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        rows = len(self._layout.newest)
        factors = on_keys[:, :rows], on_values[:, :rows]
        first = layers.start - self.first_layer
        self._kernels.smooth(self._keys, self._values, self._layout.table, self._layout.newest, *factors, first)

    def follow(self, other: PagedStep) -> None:
        """Let methods know what they found in the layers of another card.

        See :meth:`kvtune.methods.row_state.RowState.follow`.
        """
        before = {type(state): state for state in other.states}
        for state in self.states:
            both = [
                (there.seen, here.seen)
                for there, here in zip(other._acting, self._acting, strict=True)
                if state in here.states
            ]
            state.follow(before[type(state)], both)

    def end(self) -> None:
        """All layers are through."""
        for state in self.states:
            if state.layers:
                state.end_step(self)


class SpreadStep:
    """A step whose layers are on several cards, which come one after the other."""

    def __init__(self, parts: Sequence[tuple[torch.device, PagedStep]]) -> None:
        self._parts = parts

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See :class:`kvtune.captioning.grid_attention.Step`."""
        number = sum(part.first_layer <= layer for _, part in self._parts) - 1
        device, part = self._parts[number]
        with on_device(device):
            if layer == part.first_layer and number > 0:
                part.follow(self._parts[number - 1][1])
            return part.attend(layer, query, key, value, scaling)

    def end(self) -> None:
        """All layers are through."""
        last = self._parts[-1][1]
        for device, part in self._parts:
            with on_device(device):
                if part is not last:
                    part.follow(last)
                part.end()
