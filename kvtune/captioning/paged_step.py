"""One decode step of the paged grid, as the attention function of each layer sees it."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from kvtune.captioning.kernels import Kernels
from kvtune.captioning.paged_attention import Layout
from kvtune.methods import RowState


class PagedStep:
    """What the layers of one step share; each leaves its new keys and values in the pages.

    Parameters
    ----------
    keys, values
        The cache, [layers, pages, kv_heads, PAGE, head_dim].
    states
        What the methods of the rows remember.

    Attributes
    ----------
    entropies
        Layer to the entropy of each row's attention weights, [rows, heads], or [rows, 1] where it is their mean; the
        layers in which a method looks at it.
    """

    def __init__(
        self, layout: Layout, keys: Tensor, values: Tensor, kernels: Kernels, states: Collection[RowState]
    ) -> None:
        self.entropies: dict[int, Tensor] = {}
        self._layout, self._keys, self._values, self._attend = layout, keys, values, kernels.attend
        self._looked_at = {layer for state in states for layer in state.layers}
        self._on_output = [state for state in states if state.smooths_output]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer; shapes as in :class:`kvtune.captioning.step.Step`."""
        rows, heads, _, head_dim = query.shape
        kv_heads = key.shape[1]
        query = query.reshape(rows, kv_heads, heads // kv_heads, head_dim)
        new = key[:, :, 0], value[:, :, 0]
        output, entropy = self._attend(query, *new, self._keys[layer], self._values[layer], self._layout, scaling)
        output = output.view(rows, heads, head_dim)
        if layer in self._looked_at:
            self.entropies[layer] = entropy
            for state in self._on_output:
                if layer in state.layers:
                    output = state.smooth_output(layer, entropy.mean(-1), output)
        return output[:, None]
