"""Three small parts of a LLaMA-like decoder layer in plain torch: what transformers computes, rounded where it rounds.

:mod:`kvtune.captioning.triton_layers` has the same functions as one kernel each.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``hidden`` [..., n] over its root mean square, in float32 and rounded to its type, then times ``weight`` [n]."""
    exact = hidden.float()
    exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * exact.to(hidden.dtype)


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate)``, rounded, times ``up`` of the same shape."""
    return silu(gate) * up


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of one token a row, turned to its position.

    Parameters
    ----------
    query, key
        [rows, heads, 1, head_dim], each with heads of its own number. Number i of the first half of a head and number i
        of the second are turned together.
    cos, sin
        [rows, 1, head_dim], or [1, 1, head_dim] for all rows.
    """
    cos, sin = cos[:, None], sin[:, None]
    return _turned(query, cos, sin), _turned(key, cos, sin)


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return heads * cos + torch.cat([-second, first], -1) * sin
