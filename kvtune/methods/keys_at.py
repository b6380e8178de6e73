"""Layer 0's keys at other positions than a prompt's own, as the model itself computes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from kvtune.methods.decoder import Decoder

_KEYS = "kvtune_keys"
"""The name under which what hands out keys is registered with transformers."""


def keys_at(decoder: Decoder, hidden: Tensor, positions: Tensor) -> Tensor:
    """Keys of layer 0, [rows, kv_heads, tokens, head_dim].

    Parameters
    ----------
    hidden
        What the attention of layer 0 takes, [rows, tokens, width].
    positions
        Rotary positions, [rows, tokens] or [axes, rows, tokens].
    """
    attention, config = decoder.module.layers[0].self_attn, decoder.module.config
    found: list[Tensor] = []
    before = config._attn_implementation
    config._attn_implementation = _KEYS
    try:
        attention(
            hidden_states=hidden,
            position_embeddings=decoder.module.rotary_emb(hidden, position_ids=positions),
            position_ids=positions,
            attention_mask=None,
            kvtune_keys=found,
        )
    finally:
        config._attn_implementation = before
    return found[0]


def turned(decoder: Decoder, vectors: Tensor, by: Tensor) -> Tensor:
    """Queries or keys turned on by some positions, as a rotary embedding of two halves does it, or of their beginning;
    computed in at least float32 and rounded once.

    Parameters
    ----------
    vectors
        [..., head_dim].
    by
        Positions, whole numbers, [...] as ``vectors`` without the last axis.
    """
    embedding = decoder.module.rotary_emb
    frequencies = embedding.inv_freq.to(torch.float32)
    angles = by[..., None].to(torch.float32) * torch.cat([frequencies, frequencies])
    cos, sin = angles.cos(), angles.sin()
    turning, rest = vectors[..., : cos.shape[-1]], vectors[..., cos.shape[-1] :]
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned.to(vectors.dtype), rest], dim=-1)


def _hand_out(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **keywords: Any
) -> tuple[Tensor, None]:
    keywords["kvtune_keys"].append(key)
    return torch.zeros_like(query).transpose(1, 2), None


AttentionInterface.register(_KEYS, _hand_out)
