"""What is on its way from the device to the host, while other work runs already."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from torch import Tensor

from kvtune.errors import LostDeviceError

MOST_SECONDS = 900.0
"""For which a GPU may keep the host waiting: a step, or a batch of prompts, takes less than a few seconds."""

_LOOK_SECONDS = 1e-4
"""Between two looks at a copy that is waited for, while the host goes by what is asked of it, Ctrl-C among it."""


def leaving(tensor: Tensor) -> Tensor:
    """A copy of a tensor in host memory; from a GPU in pinned memory, and there when an :class:`Arrival` says so."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
    return host.copy_(tensor, non_blocking=True)


class Arrival:
    """The end of all copies that were begun until now on the current stream of a device."""

    def __init__(self, device: torch.device) -> None:
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Wait for it, so that signals are heard meanwhile. LostDeviceError if it does not come."""
        if self._copied is None:
            return
        until = time.monotonic() + MOST_SECONDS
        while not self._copied.query():
            if time.monotonic() > until:
                hung = f"the GPU hangs: it has done nothing for {MOST_SECONDS / 60:.0f} minutes"
                raise LostDeviceError(f"{hung}; see nvidia-smi -q and dmesg, and take another if it hangs again")
            time.sleep(_LOOK_SECONDS)


class HostCopy:
    """A copy of a tensor in host memory; on a GPU it is waited for only when it is read."""

    def __init__(self, tensor: Tensor) -> None:
        self._host = leaving(tensor)
        self._arrival = Arrival(tensor.device)

    def read(self) -> np.ndarray:
        self._arrival.wait()
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
