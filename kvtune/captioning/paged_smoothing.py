"""The moving average of keys and values, in place in a cache of pages, for all layers of a decode step at once.

Plain torch, with no shape and nothing that Python decides depending on what the tensors hold, so that it can be part of
a CUDA graph; :func:`kvtune.captioning.triton_smoothing.smooth` is the same as one kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvtune.methods.lerp import lerp_


def smooth(
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    slots: Tensor,
    on_keys: Tensor,
    on_values: Tensor,
    first_layer: int,
) -> None:
    """Draw the newest key and value of each row towards those before it: ``x[t] <- (1 - f) x[t] + f x[t - 1]``.

    Computed in at least float32 and rounded once. A factor of exactly 0 leaves the bits as they are.

    Parameters
    ----------
    keys, values
        [layers, pages, kv_heads, positions a page, head_dim]. Page 0 belongs to no row.
    table
        The pages of each row, [rows, pages of the longest], whole numbers: position ``p`` of a row is at
        ``p % positions a page`` of page ``table[row, p // positions a page]``.
    slots
        Position of each row's newest token, [rows], whole numbers. Where there is none before it, or none at all (-1),
        nothing changes.
    on_keys, on_values
        Factors f in [0, 1], [n, rows], float32 or float64, of the layers ``first_layer`` to ``first_layer + n - 1``.
    first_layer
        0-based.
    """
    live = slots > 0
    now = torch.where(live, slots, 0).long()
    before = (now - 1).clamp(min=0)
    for cache, factors in ((keys, on_keys), (values, on_values)):
        layers = cache[first_layer : first_layer + len(factors)]
        size = cache.shape[3]
        # Idle rows put page 0's first position back where it was.
        page, page_before = (
            torch.where(live, table.gather(1, (at // size)[:, None])[:, 0], 0).long() for at in (now, before)
        )
        new = layers[:, page, :, now % size]  # [rows, n, kv_heads, head_dim]
        factor = torch.where(live, factors, 0).T[..., None, None].to(torch.promote_types(cache.dtype, torch.float32))
        smoothed = lerp_(new.clone(), layers[:, page_before, :, before % size], factor)
        layers[:, page, :, now % size] = torch.where(factor == 0, new, smoothed)
