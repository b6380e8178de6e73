"""The grid on a CPU: one decode step of all its rows.

Suffixes of rows that stand side by side are read together, as far as the longest of them goes, where that costs less
than one more product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.attention import attend
from kvtune.captioning.cached import Cached
from kvtune.captioning.greedy import choose
from kvtune.captioning.grid_cache import GridCache, grown
from kvtune.captioning.memory import bytes_per_position
from kvtune.captioning.step import KeysOnly
from kvtune.hf import CACHE
from kvtune.methods.smoothing import lerp_

_SPAN_BYTES = 2**19
"""Keys and values that a CPU reads in the time that reading them in two products rather than one costs, roughly."""


@dataclasses.dataclass(frozen=True)
class Span:
    """Groups that lie side by side and whose suffixes are read together.

    Attributes
    ----------
    first, last
        Rows ``first <= row < last``.
    slots
        Suffix slots that are read, the new token's included.
    """

    first: int
    last: int
    slots: int

    @property
    def size(self) -> int:
        """Slots that are read, of all rows."""
        return (self.last - self.first) * self.slots


class GridStep:
    """What the layers of one step share; each leaves its new keys and values in the grid and its entropies here.

    Attributes
    ----------
    entropies
        Layer to the entropy of each row's attention weights, [rows]; the layers in which a method looks at it.
    """

    def __init__(self, grid: GridCache, spans: list[Span]) -> None:
        self.grid = grid
        self.entropies: dict[int, Tensor] = {}
        self._looked_at = {layer for state in grid.states.values() for layer in state.layers}
        self._on_output = [state for state in grid.states.values() if state.smooths_output]
        self._spans = [(span, *self._hidden(span)) for span in spans]
        _, kv_heads, capacity, _ = grid.suffix_keys.shape[1:]
        heads = torch.arange(grid.rows * kv_heads, device=grid.vlm.device).view(grid.rows, kv_heads)
        # Rows that are not running may be beyond the end of the suffix; they write into its last slot.
        slots = grid.slots.clamp(max=capacity - 1)
        places = (heads * capacity + slots[:, None]).flatten()
        self._places = torch.arange(grid.n_layers, device=places.device)[:, None] * (len(places) * capacity) + places

    def _hidden(self, span: Span) -> tuple[Tensor | None, Tensor]:
        """What hides positions of the prompts that are not there, and suffix slots that rows have not come to."""
        grid = self.grid
        on_prefix = None if grid.prefix_hidden is None else grid.prefix_hidden[self._groups(span)]
        at = grid.slots[span.first : span.last]
        ahead = torch.arange(span.slots, device=at.device) > at[:, None]
        return on_prefix, grid.hides(ahead)[:, None, None]

    def _groups(self, span: Span) -> slice:
        return slice(span.first // self.grid.lanes, span.last // self.grid.lanes)

    def put(self, layers: slice, keys: Tensor, values: Tensor) -> None:
        """Write the new token's keys and values, [layers, rows, kv_heads, head_dim], into layers of the suffix."""
        places = self._places[layers].flatten()
        for suffix, new in ((self.grid.suffix_keys, keys), (self.grid.suffix_values, values)):
            size = suffix.shape[-1]
            suffix.view(-1, size)[places] = new.reshape(-1, size)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer over prefix and suffix, joined by one softmax; see :class:`Step` for shapes."""
        grid = self.grid
        rows, heads, _, head_dim = query.shape
        kv_heads = key.shape[1]
        grid.new_keys[layer], grid.new_values[layer] = key[:, :, 0], value[:, :, 0]
        self.put(slice(layer, layer + 1), key, value)

        query = query.view(rows, kv_heads, heads // kv_heads, head_dim) * scaling
        looked_at = layer in self._looked_at
        attended = [
            attend(query[span.first : span.last], prefix, suffix, looked_at)
            for span, prefix, suffix in self._cached(layer)
        ]
        output = torch.cat([output for output, _ in attended]) if len(attended) > 1 else attended[0][0]
        output = output.to(query.dtype).reshape(rows, heads, head_dim)
        entropies = [entropy for _, entropy in attended if entropy is not None]
        if entropies:
            self.entropies[layer] = entropy = torch.cat(entropies) if len(entropies) > 1 else entropies[0]
            for state in self._on_output:
                if layer in state.layers:
                    output = state.smooth_output(layer, entropy, output)
        return output[:, None]

    def _cached(self, layer: int) -> Iterator[tuple[Span, Cached, Cached]]:
        """Each span's prefix and suffix."""
        grid, width = self.grid, self.grid.prefix_width
        for span, prefix_hidden, suffix_hidden in self._spans:
            groups, rows = self._groups(span), slice(span.first, span.last)
            yield (
                span,
                Cached(
                    grid.prefix_keys[layer, groups, :, :width],
                    grid.prefix_values[layer, groups, :, :width],
                    grid.prefix_lengths[groups],
                    prefix_hidden,
                ),
                Cached(
                    grid.suffix_keys[layer, rows, :, : span.slots],
                    grid.suffix_values[layer, rows, :, : span.slots],
                    grid.slots[rows] + 1,
                    suffix_hidden,
                ),
            )


class Grid(GridCache):
    """A grid that decodes."""

    def step(self, running: np.ndarray) -> Tensor:
        """Decode one token in every row; only those of ``running`` (row numbers) need be right.

        Returns
        -------
        Tensor
            [rows], the tokens that come next; the next step overwrites them.
        """
        spans = self._spans(running)
        longest = max(span.slots for span in spans)
        if longest > self.suffix_keys.shape[3]:
            self.suffix_keys = grown(self.suffix_keys, 2 * longest)
            self.suffix_values = grown(self.suffix_values, 2 * longest)
        self._decode(spans)
        self._host_slots[running] += 1
        return self._tokens

    def _decode(self, spans: list[Span]) -> None:
        step = GridStep(self, spans)
        hidden = self.vlm.decoder(
            inputs_embeds=self._embed(self._tokens.clamp(min=0))[:, None],
            position_ids=self._positions[:, None],
            **{CACHE: KeysOnly()},
            use_cache=True,
            kvtune_grid=step,
        ).last_hidden_state
        self._tokens.copy_(choose(self._head(hidden[:, 0])))
        self._smooth(step)
        self._positions += 1
        self.slots += 1

    def _smooth(self, step: GridStep) -> None:
        """Smooth the step's keys and values, in all layers at once, where they stand in the suffix."""
        for state in self.states.values():
            if not state.layers:
                continue
            layers = slice(state.layers.start, state.layers.stop)
            on_keys, on_values = state.factors(torch.stack([step.entropies[layer] for layer in state.layers]))
            lerp_(self.new_keys[layers], self.last_keys[layers], on_keys[..., None, None])
            lerp_(self.new_values[layers], self.last_values[layers], on_values[..., None, None])
            step.put(layers, self.new_keys[layers], self.new_values[layers])
        self.last_keys.copy_(self.new_keys)
        self.last_values.copy_(self.new_values)

    def _spans(self, running: np.ndarray) -> list[Span]:
        """Which suffix slots to read: of each group as many as its longest running row needs.

        Neighbours are read together, the shorter as far as the longer, where that costs less than one more product.
        """
        needed = np.zeros((self.groups, self.lanes), dtype=int)
        needed.flat[running] = self._host_slots[running] + 1
        longest = needed.max(axis=1)
        slot_bytes = bytes_per_position(self.vlm) // self.n_layers
        spans: list[Span] = []
        for group, slots in enumerate(longest.tolist()):
            first, last = group * self.lanes, (group + 1) * self.lanes
            if spans:
                before = spans[-1]
                together = Span(before.first, last, max(before.slots, slots))
                # A group of which nobody is running may be read as far as its neighbours are, or not at all.
                more = together.size - before.size - self.lanes * slots
                if slots == 0 or more * slot_bytes < _SPAN_BYTES:
                    spans[-1] = together
                    continue
            spans.append(Span(first, last, max(1, slots)))
        return spans
