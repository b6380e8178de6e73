"""The attention function by which a model's layers reach the step of a grid, whichever grid it is."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.masking_utils import sdpa_mask

from kvtune.errors import RequestError
from kvtune.hf import check_attention, sdpa

ATTENTION = "kvtune_grid"
"""The name under which the grid's attention function is registered with transformers."""


class Step(Protocol):
    """One decode step, whatever the grid."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer over all that is cached, the new token included.

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
    kvtune_last_outputs: list[Tensor] | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    check_attention(module, keywords)
    if attention_mask is not None and attention_mask.shape[1] > 1:  # of each head its own
        raise RequestError(
            f"{type(module).__name__} is not supported: its attention adds to scores what each head makes of the values"
        )
    if kvtune_grid is None:  # a prefill
        output = sdpa(module, query, key, value, attention_mask, scaling=scaling, **keywords)
        if kvtune_last_outputs is not None:
            kvtune_last_outputs.append(output[0][:, -1].clone())  # [rows, heads, head_dim]
        return output
    return kvtune_grid.attend(module.layer_idx, query, key, value, scaling), None


def _mask(attention_mask: Tensor | None = None, allow_is_causal_skip: bool = True, **keywords: Any) -> Tensor | None:
    """As for sdpa, but padding is not looked at to see whether it hides anything, for else no mask is given."""
    skip = allow_is_causal_skip and attention_mask is None
    return sdpa_mask(attention_mask=attention_mask, allow_is_causal_skip=skip, **keywords)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, _mask)
