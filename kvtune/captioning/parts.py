"""Attention over some of the positions, and how two parts are joined as one softmax.

Each part is computed for itself, relative to its own highest score, and the two are joined exactly: a softmax is a
ratio of sums, and so is the entropy of its weights (with e = exp(s - m): log Σe - Σ e (s - m) / Σe).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Part:
    """Attention over some of the positions, float32, [groups, kv_heads, queries, .].

    Attributes
    ----------
    highest
        m, the highest score, [..., 1].
    total
        Σ exp(s - m), [..., 1].
    weighted
        Σ exp(s - m) (s - m), [..., 1].
    output
        Σ exp(s - m) v, [..., head_dim].
    """

    highest: Tensor
    total: Tensor
    weighted: Tensor
    output: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Part:
        """The same part with every tensor put through ``change``."""
        return Part(*map(change, (self.highest, self.total, self.weighted, self.output)))


def join(one: Part, other: Part) -> tuple[Tensor, Tensor]:
    """What one softmax over both parts' positions gives.

    Parameters
    ----------
    one, other
        Of [rows, kv_heads, queries, .].

    Returns
    -------
    tuple
        The attention output, and the entropy of each row's weights, [rows], natural log, mean over heads.
    """
    highest = torch.maximum(one.highest, other.highest)
    down_one, down_other = one.highest - highest, other.highest - highest
    share_one, share_other = down_one.exp(), down_other.exp()
    total = share_one * one.total + share_other * other.total
    share_one, share_other = share_one / total, share_other / total
    output = one.output * share_one + other.output * share_other
    below = share_one * (one.weighted + one.total * down_one)
    below += share_other * (other.weighted + other.total * down_other)
    return output, (total.log() - below).flatten(1).mean(1)
