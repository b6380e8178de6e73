"""The moving average by which a newest key or value is drawn towards the one before."""

import torch
from torch import Tensor


def lerp_(new: Tensor, before: Tensor, factor: Tensor) -> Tensor:
    """``new <- (1 - factor) * new + factor * before`` in place, computed in at least float32."""
    if new.dtype in (torch.float32, torch.float64):
        return new.lerp_(before, factor.to(new.dtype))
    return new.copy_(torch.lerp(new.float(), before.float(), factor.float()))
