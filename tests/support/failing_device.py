"""A GPU that fails, played on the CPU: from one operation on, every one raises what PyTorch raises."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_REST = (
    "\nSearch for `cudaError' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more "
    "information.\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)


def cuda_error(what):
    """What PyTorch 2.11 raises where CUDA says so."""
    return torch.AcceleratorError(f"CUDA error: {what}{_REST}")


class FailingDevice(TorchDispatchMode):
    """While it is entered, operations are counted, and from number ``at`` on, counted from 0, each raises an error.

    Those of other threads are not.
    """

    def __init__(self, at=float("inf"), words="an illegal memory access was encountered"):
        super().__init__()
        self.at, self.words, self.count = at, words, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        if self.count > self.at:
            raise cuda_error(self.words)
        return function(*args, **(kwargs or {}))
