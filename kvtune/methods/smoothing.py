"""The two formulas that smoothing methods share: the entropy of attention rows and the moving average."""

import torch
from torch import Tensor

ENTROPY_EPSILON = 1e-10
"""Added to attention weights before the logarithm (the paper gives none; small enough not to show in float32)."""


def row_entropy(weights: Tensor) -> Tensor:
    """Entropy of attention rows, natural log, mean over heads (the paper's eq. 5).

    Parameters
    ----------
    weights
        [rows, ..., positions], post-softmax, at least float32; the axes between are heads.

    Returns
    -------
    Tensor
        [rows].
    """
    heads = weights.shape[1:-1].numel()
    return (weights * (weights + ENTROPY_EPSILON).log()).flatten(1).sum(1) / -heads


def lerp_(new: Tensor, before: Tensor, factor: Tensor) -> Tensor:
    """``new <- (1 - factor) * new + factor * before`` in place, computed in at least float32."""
    if new.dtype in (torch.float32, torch.float64):
        return new.lerp_(before, factor.to(new.dtype))
    return new.copy_(torch.lerp(new.float(), before.float(), factor.float()))
