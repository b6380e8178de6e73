"""Attention over part of the positions, and how two parts are joined as one softmax.

A row attends to its image's prompt, which all rows of the image share, and to what it has written itself. Each part is
computed for itself, relative to its own highest score, and the two are joined exactly: a softmax is a ratio of sums,
and so is the entropy of its weights (with e = exp(s - m): log Σe - Σ e (s - m) / Σe).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvtune.methods.smoothing import row_entropy


@dataclasses.dataclass(frozen=True)
class Part:
    """Attention over some of the positions, [groups, kv_heads, queries, .], at least float32 but for the output.

    Attributes
    ----------
    highest
        m, the highest score, [..., 1].
    total
        Σ exp(s - m), [..., 1].
    weighted
        Σ exp(s - m) (s - m), [..., 1]; None where nobody asks for entropy.
    output
        Σ exp(s - m) v, [..., head_dim].
    terms
        exp(s - m) itself, [..., positions]; kept in float64 alone, where the entropy's epsilon shows.
    """

    highest: Tensor
    total: Tensor
    weighted: Tensor | None
    output: Tensor
    terms: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Part:
        """The same part with every tensor put through ``change``."""
        changed = {name: change(one) for name, one in vars(self).items() if one is not None}
        return dataclasses.replace(self, **changed)


@dataclasses.dataclass(frozen=True)
class Positions:
    """Which positions are there, the same for all heads of a group.

    Attributes
    ----------
    lengths
        [groups], at least 1; the positions from there on hold nothing.
    hidden
        The same as numbers to add to scores, [groups, 1, 1, positions]; None if all are as long as the tensors.
    """

    lengths: Tensor
    hidden: Tensor | None


Attend = Callable[[Tensor, Tensor, Tensor, Positions, bool], Part]
"""The signature of :func:`attend`."""


def attention(device: torch.device, dtype: torch.dtype) -> Attend:
    """The implementation for a device: a kernel that reads what is there and no more, or plain torch.

    float64 is for proofs, in which the kernel has no part.
    """
    if device.type == "cuda" and dtype != torch.float64:
        try:
            from kvtune.captioning.triton_attention import attend as with_triton
        except ImportError:
            return attend
        return with_triton
    return attend


def attend(query: Tensor, keys: Tensor, values: Tensor, positions: Positions, with_entropy: bool) -> Part:
    """Attention of ``query`` over ``keys`` and ``values`` alone.

    Parameters
    ----------
    query
        [groups, kv_heads, queries, head_dim], scaled.
    keys, values
        [groups, kv_heads, positions, head_dim].
    """
    scores = torch.matmul(query, keys.transpose(-1, -2))
    if positions.hidden is not None:
        scores += positions.hidden
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    highest = scores.amax(-1, keepdim=True)
    scores -= highest
    terms = scores.exp()
    weighted = (scores.mul_(terms)).sum(-1, keepdim=True) if with_entropy else None
    literal = terms if with_entropy and terms.dtype == torch.float64 else None
    output = torch.matmul(terms.to(values.dtype), values)
    return Part(highest, terms.sum(-1, keepdim=True), weighted, output, literal)


def stacked(parts: Sequence[Part]) -> Part:
    """Parts of different rows as one; their positions are others, so that ``terms`` are padded."""
    if len(parts) == 1:
        return parts[0]
    weighted = [part.weighted for part in parts if part.weighted is not None]
    terms = [part.terms for part in parts if part.terms is not None]
    longest = max((term.shape[-1] for term in terms), default=0)
    padded = [torch.nn.functional.pad(term, (0, longest - term.shape[-1])) for term in terms]
    return Part(
        torch.cat([part.highest for part in parts]),
        torch.cat([part.total for part in parts]),
        torch.cat(weighted) if weighted else None,
        torch.cat([part.output for part in parts]),
        torch.cat(padded) if padded else None,
    )


def join(one: Part, other: Part) -> tuple[Tensor, Tensor | None]:
    """What one softmax over both parts' positions gives.

    Parameters
    ----------
    one, other
        Of [rows, kv_heads, queries, .].

    Returns
    -------
    tuple
        The attention output, and the entropy of each row's weights, [rows], natural log, mean over heads; None where
        the parts were computed without.
    """
    highest = torch.maximum(one.highest, other.highest)
    down_one, down_other = one.highest - highest, other.highest - highest
    share_one, share_other = down_one.exp(), down_other.exp()
    total = share_one * one.total + share_other * other.total
    share_one, share_other = share_one / total, share_other / total
    dtype = one.output.dtype
    output = one.output * share_one.to(dtype) + other.output * share_other.to(dtype)
    if one.weighted is None or other.weighted is None:
        return output, None
    if one.terms is not None and other.terms is not None:
        return output, row_entropy(one.terms * share_one) + row_entropy(other.terms * share_other)
    below = share_one * (one.weighted + one.total * down_one) + share_other * (
        other.weighted + other.total * down_other
    )
    return output, (total.log() - below).flatten(1).mean(1)
