"""From the host to a device, without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pinned(numbers: np.ndarray, device: torch.device) -> Tensor:
    """``numbers`` in memory from which ``device`` copies while the host goes on."""
    import torch

    tensor = torch.from_numpy(numbers)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; nobody waits for it, except on the way back to the host."""
    goes_out = tensor.device.type == "cpu" and device.type != "cpu"
    if goes_out and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=goes_out)


def to_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """``numbers`` on ``device``, in one copy that nobody waits for."""
    return pinned(numbers, device).to(device, non_blocking=True)
