"""The entropy of attention, which methods read."""

from torch import Tensor

ENTROPY_EPSILON = 1e-10
"""Added to attention weights before the logarithm (KVSmooth's paper gives none; too small to show in float32)."""


def row_entropy(weights: Tensor) -> Tensor:
    """Entropy of attention rows, natural log, mean over heads (eq. 5 of KVSmooth's paper).

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
