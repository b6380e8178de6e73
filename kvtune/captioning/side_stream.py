"""A GPU's second stream, for work beside its decode steps: the host waits for that alone where it must."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class SideStream:
    """Runs something while decode steps go on: on a GPU in a stream of its own, elsewhere as anything is run.

    Who reads its numbers, as vision towers do by the dozen, would wait for the step that runs meanwhile too, and the
    device would stand idle until the host has launched what comes next.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = side_stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still load weights

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is launched within the block; what is launched after it comes later on the device too."""
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Let tensors that were made aside be used, and forgotten, by what runs elsewhere."""
        if self._stream is not None:
            for tensor in tensors:
                tensor.record_stream(torch.cuda.current_stream(self._device))


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream of ``device`` whose work goes before what the steps still have to do.

    One for all, since libraries keep a workspace for every stream that they have seen.
    """
    return torch.cuda.Stream(device, priority=-1)
