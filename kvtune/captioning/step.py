"""One decode step of the grid, as the attention function of each layer sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvtune.captioning.attention import Cached, attend

if TYPE_CHECKING:
    from kvtune.captioning.grid import Grid

ATTENTION = "kvtune_grid"
"""The name under which the grid's attention function is registered with transformers."""


class Step(Protocol):
    """One decode step, whatever the grid."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See :meth:`GridStep.attend`."""


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

    def __init__(self, grid: Grid, spans: list[Span]) -> None:
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
        """Attention of one layer over prefix and suffix, joined by one softmax.

        Parameters
        ----------
        query
            [rows, heads, 1, head_dim].
        key, value
            [rows, kv_heads, 1, head_dim], of the new token.

        Returns
        -------
        Tensor
            [rows, 1, heads, head_dim].
        """
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


class KeysOnly(Cache):
    """Stands in for a cache in a step: hands the new keys and values back, for the grid keeps them itself."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key_states: Tensor, value_states: Tensor, *arguments: Any, **keywords: Any) -> Any:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    kvtune_grid: Step | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    if kvtune_grid is None:  # a prefill
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **keywords)
    return kvtune_grid.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
