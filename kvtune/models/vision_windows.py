"""Attention of vision towers within windows: those of one length as one batch.

transformers goes over the windows of each layer one by one, unless what it calls is flash attention, which it tells
where they end: Qwen2.5-VL takes 844 calls for an image of 640 by 480 pixels, and a GPU waits for the host meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface

from kvtune.hf import sdpa
from kvtune.methods.sending import to_device

_NAME = "kvtune_flash_windows"
"""By "flash" transformers knows whom to tell where windows end."""

_ORDERS: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Ends of windows -> their :class:`_Order`; all layers of a pass share one or two of them."""


@contextmanager
def windows_together(config: Any) -> Iterator[None]:
    """Within the block, a vision tower of this configuration computes windows of one length as one batch."""
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


class _Order:
    """Tokens in the order of their windows' lengths.

    Attributes
    ----------
    groups
        How many windows there are of each length.
    there, back
        [tokens], which token comes where, and the way back.
    """

    def __init__(self, ends: Tensor) -> None:
        places = ends.tolist()
        begins, lengths = np.array(places[:-1]), np.diff(places)
        order = np.argsort(lengths, kind="stable")
        tokens = np.concatenate([np.arange(begins[window], begins[window] + lengths[window]) for window in order])
        self.groups = list(zip(*(found.tolist() for found in np.unique(lengths, return_counts=True)), strict=True))
        self.there, self.back = to_device(np.stack([tokens, np.argsort(tokens)]), ends.device)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """Attention of tokens, [1, heads, tokens, head_dim], each within its window; [1, tokens, heads, head_dim]."""
    if (order := _ORDERS.get(cu_seq_lens_q)) is None:
        order = _ORDERS[cu_seq_lens_q] = _Order(cu_seq_lens_q)
    query, key, value = (each[0].index_select(1, order.there) for each in (query, key, value))
    outputs, begin = [], 0
    for length, windows in order.groups:
        part = slice(begin, begin + length * windows)
        own = (each[:, part].unflatten(1, (windows, length)).transpose(0, 1) for each in (query, key, value))
        outputs.append(sdpa(module, *own, None, scaling=scaling, is_causal=False)[0].flatten(0, 1))
        begin = part.stop
    return torch.cat(outputs).index_select(0, order.back)[None], None


AttentionInterface.register(_NAME, _attention)
