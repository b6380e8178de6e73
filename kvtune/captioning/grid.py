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

from kvtune.captioning.attention import Cached, attend
from kvtune.captioning.forced import NOT_FORCED
from kvtune.captioning.greedy import choose
from kvtune.captioning.grid_attention import KeysOnly
from kvtune.captioning.grid_cache import GridCache, grown
from kvtune.hf import CACHE
from kvtune.methods.acting import Acting
from kvtune.methods.lerp import lerp_
from kvtune.methods.row_methods import looking_at_layers
from kvtune.methods.seen import SeenPositions

SPAN_BYTES = 2**19
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

    ``to_come`` is as in :class:`kvtune.methods.seen.Seen`, of all rows.
    """

    def __init__(self, grid: GridCache, spans: list[Span], running: np.ndarray, to_come: Tensor) -> None:
        self.grid, self._to_come = grid, to_come
        self.generated = to_come < 0
        self.states = grid.methods.of(running)
        self._entropies: dict[int, Tensor] = {}
        self._looked_at = {layer for state in self.states if state.reads_entropy for layer in state.layers}
        self._on_output = [state for state in self.states if state.changes_output]
        self._spans = [(span, *self._hidden(span), self._acting(span, running)) for span in spans]
        _, kv_heads, capacity, _ = grid.suffix_keys.shape[1:]
        heads = torch.arange(grid.rows * kv_heads, device=grid.vlm.device).view(grid.rows, kv_heads)
        # Rows that are not running may be beyond the end of the suffix; they write into its last slot.
        slots = grid.slots.clamp(max=capacity - 1)
        places = (heads * capacity + slots[:, None]).flatten()
        self._places = torch.arange(grid.n_layers, device=places.device)[:, None] * (len(places) * capacity) + places

    def _hidden(self, span: Span) -> tuple[Tensor | None, Tensor]:
        """What hides prompt tokens that are not there, and suffix slots that rows have not come to."""
        grid, rows = self.grid, slice(span.first, span.last)
        on_prefix = None if grid.prefix_hidden is None else grid.prefix_hidden[rows]
        ahead = torch.arange(span.slots, device=grid.slots.device) > grid.slots[rows, None]
        return on_prefix, grid.hides(ahead)[:, None, None]

    def _acting(self, span: Span, running: np.ndarray) -> list[Acting]:
        """Methods that change scores or weights in a span."""
        grid = self.grid
        inside = running[(running >= span.first) & (running < span.last)]
        acting = []
        for states, rows in grid.methods.on_attention(inside):
            whole = len(rows) == len(inside)  # whatever is done in rows that stand idle
            rows = np.arange(span.first, span.last) if whole else rows
            index = torch.from_numpy(rows)
            classes = grid.classes[:, torch.from_numpy(rows // grid.lanes), : grid.prefix_width]
            read = torch.from_numpy(grid.read[rows])
            lies = slice(span.first, span.last) if whole else None
            seen = SeenPositions(index, classes, read, self._to_come[index], lies)
            acting.append(Acting(states, seen, None if whole else index - span.first))
        return acting

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

        query = query.view(rows, kv_heads, heads // kv_heads, head_dim)
        looked_at = layer in self._looked_at
        attended = [
            attend(query[span.first : span.last], prefix, suffix, scaling, looked_at, layer, acting)
            for span, prefix, suffix, acting in self._cached(layer)
        ]
        output = torch.cat([output for output, _ in attended]) if len(attended) > 1 else attended[0][0]
        output = output.to(query.dtype).reshape(rows, heads, head_dim)
        entropies = [entropy for _, entropy in attended if entropy is not None]
        if looked_at:
            self._entropies[layer] = entropy = torch.cat(entropies) if len(entropies) > 1 else entropies[0]
            for state in self._on_output:
                if layer in state.layers:
                    output = state.change_output(layer, output, entropy, self.generated)
        return output[:, None]

    def _cached(self, layer: int) -> Iterator[tuple[Span, Cached, Cached, list[Acting]]]:
        """Each span's prefix and suffix, and the methods that act there in this layer."""
        grid, width = self.grid, self.grid.prefix_width
        for span, prefix_hidden, suffix_hidden, acting in self._spans:
            rows = slice(span.first, span.last)
            groups = slice(span.first // grid.lanes, span.last // grid.lanes)
            prefix = Cached(
                grid.prefix_keys[layer, groups, :, :width], grid.prefix_values[layer, groups, :, :width], prefix_hidden
            )
            suffix = Cached(
                grid.suffix_keys[layer, rows, :, : span.slots],
                grid.suffix_values[layer, rows, :, : span.slots],
                suffix_hidden,
            )
            yield span, prefix, suffix, [one for one in acting if one.changes(layer)]

    def entropies(self, layers: range) -> Tensor:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        return torch.stack([self._entropies[layer] for layer in layers])

    def draw(self, layers: range, on_keys: Tensor, on_values: Tensor) -> None:
        """See :class:`kvtune.methods.row_state.StepEnd`; in all layers at once, where they stand in the suffix."""
        grid, those = self.grid, slice(layers.start, layers.stop)
        lerp_(grid.new_keys[those], grid.last_keys[those], on_keys[..., None, None])
        lerp_(grid.new_values[those], grid.last_values[those], on_values[..., None, None])
        self.put(those, grid.new_keys[those], grid.new_values[those])


class Grid(GridCache):
    """A grid that decodes."""

    def step(self, running: np.ndarray) -> Tensor:
        """Decode one token in every row; only those of ``running`` (row numbers) need be right.

        Returns
        -------
        Tensor
            [rows], the tokens that come next; the next step overwrites them.
        """
        spans = self.spans_of(running)
        longest = max(span.slots for span in spans)
        if longest > self.suffix_keys.shape[3]:
            self.suffix_keys = grown(self.suffix_keys, 2 * longest)
            self.suffix_values = grown(self.suffix_values, 2 * longest)
        fed = self.forced.next(running)
        held = fed != NOT_FORCED
        to_come = np.full(self.rows, -1)
        if held.any():
            self.tokens[self._to_device(running[held])] = self._to_device(fed[held])
            to_come[running] = self.forced.to_come(running)
        self._decode(GridStep(self, spans, running, self._to_device(to_come)))
        self.forced.advance(running)
        self.host_slots[running] += 1
        return self.tokens

    def _decode(self, step: GridStep) -> None:
        with self.vlm.moving_rotary.held(), looking_at_layers(self.methods.decoder, step.states):
            hidden = self.vlm.decoder(
                inputs_embeds=self._embed(self.tokens.clamp(min=0))[:, None],
                position_ids=self._positions[:, None],
                **{CACHE: KeysOnly()},
                use_cache=True,
                kvtune_grid=step,
            ).last_hidden_state
        self.tokens.copy_(choose(self._head(hidden[:, 0])))
        for state in step.states:
            if state.layers:
                state.end_step(step)
        self.last_keys.copy_(self.new_keys)
        self.last_values.copy_(self.new_values)
        self._positions += 1
        self.slots += 1

    def spans_of(self, running: np.ndarray) -> list[Span]:
        """Which suffix slots to read: of each group as many as its longest running row needs.

        Neighbours are read together, the shorter as far as the longer, where that costs less than one more product.
        """
        needed = np.zeros((self.groups, self.lanes), dtype=int)
        needed.flat[running] = self.host_slots[running] + 1
        longest = needed.max(axis=1)
        spans: list[Span] = []
        for group, slots in enumerate(longest.tolist()):
            first, last = group * self.lanes, (group + 1) * self.lanes
            if spans:
                before = spans[-1]
                together = Span(before.first, last, max(before.slots, slots))
                # A group of which nobody is running may be read as far as its neighbours are, or not at all.
                more = together.size - before.size - self.lanes * slots
                if slots == 0 or more * self._slot_bytes < SPAN_BYTES:
                    spans[-1] = together
                    continue
            spans.append(Span(first, last, max(1, slots)))
        return spans
