"""A plain pass over a prompt before it is run as methods have it, for what they must know of it first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from kvtune.hf import CACHE_NAMES, attention_implementation, without_cudnn_attention
from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import AnyFact, watched


def look_ahead(
    model: Any, decoder: Decoder, facts: Collection[AnyFact], keywords: Mapping[str, Any], visual: Tensor
) -> list[dict[AnyFact, Any]]:
    """What ``facts`` note of each row's prompt.

    Parameters
    ----------
    keywords
        What the decoder is called with for the prompts, padded on the left.
    visual
        [rows, prompt tokens] bool: which are visual.
    """
    given = {name: value for name, value in keywords.items() if name not in (*CACHE_NAMES, "use_cache")}
    given["attention_mask"] = _without_cache(keywords.get("attention_mask"))
    with watched(facts, decoder) as noted, attention_implementation(model, "sdpa"), without_cudnn_attention():
        decoder.module(**given, use_cache=False)
    begins = _begins(given["attention_mask"], len(visual))
    return [
        {fact: fact.of_row(decoder, found, row, begin, visual[row]) for fact, found in noted.items()}
        for row, begin in enumerate(begins)
    ]


def _without_cache(mask: Any) -> Any:
    """The mask of a prompt's pass, as it is without the places that a static cache keeps for later tokens."""
    if isinstance(mask, Mapping):  # by kind of layer
        return {kind: _without_cache(one) for kind, one in mask.items()}
    if isinstance(mask, Tensor) and mask.ndim == 4:
        return mask[..., : mask.shape[2]]
    return mask


def _begins(mask: Any, rows: int) -> list[int]:
    """Where each row's prompt begins, after its padding on the left."""
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None:
        return [0] * rows
    if mask.ndim == 4:  # whom the last token sees, boolean or added to scores
        mask = mask[:, 0, -1] if mask.dtype == torch.bool else mask[:, 0, -1] == 0
    begins: list[int] = mask.int().argmax(-1).expand(rows).tolist()
    return begins
