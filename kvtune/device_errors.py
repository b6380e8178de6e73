"""What PyTorch and CUDA say when a GPU fails: there is no memory, it cannot be used here, or it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kvtune.errors import KvtuneError, LostDeviceError, RequestError
from kvtune.text import first_line

_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA out of memory. ",  # where somebody has written down what PyTorch's own exception says
    "CUDA error: out of memory",  # of a graph, or of a kernel that is loaded
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "Triton Error [CUDA]: out of memory",
)

_LOST = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "context is destroyed",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "over nvlink or a hardware error",
    "CUDA error: unknown error",  # also of a GPU that has fallen off the bus
    "CUDA driver error: unknown error",
    "Triton Error [CUDA]: unknown error",
    "the MPS client has been terminated",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
)
"""After these, CUDA answers everything that the process asks of the GPU with the same error."""

_AGAIN = "if the next one meets it too, try --no-cuda-graphs, and report it"
_OTHER = "if the next one meets it too, the GPU is broken (nvidia-smi -q, dmesg): take another"
_ASSERT = "an index was out of range: files of the model may not fit each other, which --device cpu tells by name"
_OF_LOST = {"device-side assert": _ASSERT} | dict.fromkeys(("ECC", "NVLink", "nvlink", "unknown error"), _OTHER)

BUILD = "install the torch build for this GPU and driver (pytorch.org, Get Started), or use --device cpu"
"""What to do where torch has nothing that a GPU could run."""

_DRIVER = "update the NVIDIA driver, or install the torch build for the one that is there (pytorch.org, Get Started)"
_BUSY = "another process has it for itself (nvidia-smi names it): end that, or name another GPU with --device"
_CURES = {
    "no kernel image is available": BUILD,
    "device kernel image is invalid": BUILD,
    "unsupported toolchain": _DRIVER,
    "driver on your system is too old": _DRIVER,
    "driver version is insufficient": _DRIVER,
    "unsupported display driver / cuda driver": "restart the machine, whose NVIDIA driver was changed while it ran",
    "forward compatibility was attempted": "take CUDA's compat folder out of LD_LIBRARY_PATH",
    "system not yet initialized": "start NVIDIA's fabric manager (systemctl start nvidia-fabricmanager)",
    "busy or unavailable": _BUSY,
    "MPS": "see to NVIDIA's MPS server (nvidia-cuda-mps-control), or end it",
    "initialization error": "see nvidia-smi, and whether CUDA_VISIBLE_DEVICES names a GPU that is there",
}
"""What is said of a GPU that cannot be used here, and what to do."""

_CUDA = ("CUDA error: ", "CUDA driver error: ", "cuDNN error: ", "Triton Error [CUDA]: ")
"""How what PyTorch, its libraries and Triton raise of CUDA's errors begins."""

_held: list[BaseException] = []
"""What is raised over a lost GPU, and with it what it holds there: PyTorch's allocators record events when they are
given memory back that streams have used, and where these fail end the process with a dump of C++."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had no room; PyTorch has an exception of its own for that only for tensors on a GPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error)
    # PyTorch's allocator asks NVML who has the memory that it lacks, which not every container has.
    asked_in_vain = "NVML_SUCCESS == " in said and "CUDACachingAllocator.cpp" in said
    return isinstance(error, RuntimeError) and (asked_in_vain or any(words in said for words in _NO_MEMORY))


def is_lost(error: BaseException) -> bool:
    """Whether a GPU does nothing more for this process, so that nothing else need be tried on it."""
    if isinstance(error, LostDeviceError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def cure_for(error: BaseException) -> str | None:
    """What to do where a GPU is lost, or cannot be used here; None of any other error."""
    said = str(error)
    if is_lost(error):
        return next((cure for words, cure in _OF_LOST.items() if words in said), _AGAIN)
    if not isinstance(error, RuntimeError | torch.cuda.DeferredCudaCallError) or "cuda" not in said.lower():
        return None
    return next((cure for words, cure in _CURES.items() if words in said), None)


def device_failure(error: BaseException) -> KvtuneError | None:
    """What to say where a GPU is lost, or cannot be used here; None of any other error, also of a lack of memory.

    Returns
    -------
    KvtuneError
        A LostDeviceError, for which ``error`` is kept to the end of the process; or a RequestError.
    """
    if isinstance(error, KvtuneError):
        return error if is_lost(error) else None
    if (cure := cure_for(error)) is None:
        return None
    if is_lost(error):
        _held.append(error)
        return LostDeviceError(f"the GPU does nothing more for this process: {first_line(error)}; {cure}")
    return RequestError(f"the GPU cannot be used: {first_line(error)}; {cure}")


def failure_anywhere(error: BaseException) -> KvtuneError | None:
    """The same where nothing smaller can be tried: of a lack of memory too, and of all else that CUDA says."""
    if (failure := device_failure(error)) is not None:
        return failure
    if is_out_of_memory(error):
        return KvtuneError(f"out of device memory: {first_line(error)}; free memory or use a smaller dtype")
    if isinstance(error, RuntimeError) and str(error).startswith(_CUDA):
        return KvtuneError(f"the GPU failed: {first_line(error)}; --debug shows where")
    return None


@contextmanager
def device_failures_told() -> Iterator[None]:
    """Raise what :func:`device_failure` says of an error in the block, instead of the error."""
    try:
        yield
    except Exception as error:
        failure = device_failure(error)
        if failure is None or failure is error:
            raise
        raise failure from error
