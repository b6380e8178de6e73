"""The attention function of an attached method: SDPA for the prompt, row entropies from then on."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvtune.hf import check_attention
from kvtune.methods.row_state import RowState
from kvtune.methods.smoothing import row_entropy

ATTENTION = "kvtune"
"""The name under which the attention function and its mask function are registered with transformers."""


@dataclasses.dataclass
class Step:
    """One forward pass of the decoder, as the attention function sees it."""

    state: RowState | None
    is_prompt: bool
    entropies: list[Tensor] = dataclasses.field(default_factory=list)
    """Of the layers in ``state.layers``, in order, each [rows]."""
    observed: list[Tensor] | None = None
    """Entropies of all layers, where somebody looks on."""


@torch.compiler.disable
def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    kvtune_step: Step | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    """SDPA for the prompt and for layers that the method leaves alone; else attention whose rows are looked at.

    Shapes as transformers passes them: query [rows, heads, tokens, head_dim], key and value
    [rows, kv_heads, positions, head_dim]; returns [rows, tokens, heads, head_dim] and the weights.
    """
    check_attention(module, keywords)
    state = kvtune_step.state if kvtune_step else None
    if kvtune_step is None or state is None or kvtune_step.is_prompt or module.layer_idx not in state.layers:
        output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **keywords)
        if state is not None and state.smooths_output and module.layer_idx in state.layers:
            state.start_outputs(torch.arange(len(output), device=output.device), module.layer_idx, output[:, -1])
        if kvtune_step is not None and kvtune_step.observed is not None:
            kvtune_step.observed.append(row_entropy(_weights(query, key, attention_mask, scaling)))
        return output, weights
    rows, heads, _, _ = query.shape
    weights = _weights(query, key, attention_mask, scaling)
    entropy = row_entropy(weights)
    kvtune_step.entropies.append(entropy)
    if kvtune_step.observed is not None:
        kvtune_step.observed.append(entropy)
    weights = weights.to(query.dtype)
    output = torch.matmul(weights, value).view(rows, heads, value.shape[-1])
    if state.smooths_output:
        output = state.smooth_output(module.layer_idx, entropy, output)
    return output[:, None], weights.view(rows, heads, 1, -1)


def _weights(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float) -> Tensor:
    """Attention of one new token, [rows, kv_heads, group, positions], at least float32; arguments as _attention's."""
    rows, _, _, head_dim = query.shape
    scores = torch.matmul(query.view(rows, key.shape[1], -1, head_dim), key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = _masked(scores, attention_mask)
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores [rows, kv_heads, group, positions] under a mask [rows, 1 or heads, 1, positions], boolean or additive."""
    if mask.shape[1] != 1:
        mask = mask.view(*scores.shape[:3], -1)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
