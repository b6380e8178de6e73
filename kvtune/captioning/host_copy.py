"""Tokens on their way from the device to the host, while the next step runs already."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor in host memory; on a GPU it is waited for only when it is read."""

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._host = tensor.to("cpu", copy=True)

    def read(self) -> np.ndarray:
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.numpy()


@dataclasses.dataclass(frozen=True)
class Unread:
    """The tokens of one step, or those with which captions begin.

    Attributes
    ----------
    rows
        The rows that were decoding.
    turns
        Which of its captions each row was at: a row may have ended one, and begun another, before this is read.
    tokens
        Of all rows of the grid.
    """

    rows: np.ndarray
    turns: np.ndarray
    tokens: HostCopy
