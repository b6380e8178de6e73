"""PyTorch's autocast, left for a moment."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: str) -> AbstractContextManager[object]:
    """A context in which operations on a type of device keep the types of their tensors.

    It is entered several times a layer, mostly where there is none to leave; some devices, as ``meta``, have none.
    """
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
