"""Attention of some rows as the methods that act on them have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kvtune.methods.entropy import row_entropy
from kvtune.methods.row_state import RowState
from kvtune.methods.seen import SeenPositions
from kvtune.methods.without_autocast import without_autocast


@dataclasses.dataclass(frozen=True)
class Acting:
    """Rows of a batch on which the same methods act in the same order.

    Attributes
    ----------
    index
        Where they are in the tensors that a caller holds, [n]; None if they are all of them.
    """

    states: Sequence[RowState[Any]]
    seen: SeenPositions
    index: Tensor | None = None

    def changes(self, layer: int) -> bool:
        """Whether any of them changes scores or weights in a layer."""
        return any(state.changes_attention and layer in state.layers for state in self.states)

    def attend(self, layer: int, query: Tensor, scores: Tensor, scaling: float) -> tuple[Tensor, Tensor | None]:
        """Attention weights for the sum over values, and the entropy that a method among them wants; under autocast too
        in the type of the scores.

        Parameters
        ----------
        query
            [n, heads, head_dim].
        scores
            [n, heads, positions], scaled, at least float32; changed.
        """
        seen, entropy = self.seen.in_layer(layer, query, scaling), None
        states = [state for state in self.states if layer in state.layers]
        with without_autocast(scores.device.type):
            for state in states:
                scores = state.change_scores(seen, scores)
            weights = torch.softmax(scores, dim=-1)
            for state in states:
                if state.reads_entropy:
                    entropy = row_entropy(weights)
                weights = state.change_weights(seen, weights)
            for state in states:
                weights = state.change_sum(seen, weights)
        return weights, entropy
