"""What CUDA says when a GPU fails, by the words of CUDA 13 and PyTorch 2.11: which kind it is, and the cure."""

import gc

import pytest

torch = pytest.importorskip("torch")

from failing_device import cuda_error  # noqa: E402

from kvtune.device_errors import (  # noqa: E402
    device_failure,
    device_failures_told,
    failure_anywhere,
    is_lost,
    is_out_of_memory,
)
from kvtune.errors import KvtuneError, LostDeviceError, RequestError  # noqa: E402
from kvtune.models.misfit import in_a_line  # noqa: E402

CUBLAS = "when calling `cublasGemmEx( handle, opa, opb, m, n, k, alpha_ptr, a, CUDA_R_16BF, lda)`"

LOST = {
    "an illegal memory access was encountered": "--no-cuda-graphs",
    "device-side assert triggered": "--device cpu tells by name",
    "unspecified launch failure": "--no-cuda-graphs",
    "the launch timed out and was terminated": "--no-cuda-graphs",
    "misaligned address": "--no-cuda-graphs",
    "uncorrectable ECC error encountered": "take another",
    "uncorrectable NVLink error detected during the execution": "take another",
    "unknown error": "take another",
    f"CUBLAS_STATUS_EXECUTION_FAILED {CUBLAS}": "--no-cuda-graphs",
}
UNUSABLE = {
    "no kernel image is available for execution on the device": "install the torch build",
    "the provided PTX was compiled with an unsupported toolchain.": "update the NVIDIA driver",
    "CUDA driver version is insufficient for CUDA runtime version": "update the NVIDIA driver",
    "CUDA-capable device(s) is/are busy or unavailable": "nvidia-smi names it",
    "system not yet initialized": "nvidia-fabricmanager",
    "forward compatibility was attempted on non supported HW": "LD_LIBRARY_PATH",
}
OTHERS = ["invalid configuration argument", "operation not permitted when stream is capturing", "out of memory"]


@pytest.mark.parametrize("words", LOST)
def test_a_gpu_that_is_lost(words):
    error = cuda_error(words)
    told = device_failure(error)
    assert is_lost(error) and isinstance(told, LostDeviceError) and told.exit_code == 1
    assert str(told).startswith(f"the GPU does nothing more for this process: CUDA error: {words}; ")
    assert str(told).endswith(LOST[words]) or LOST[words] in str(told)
    assert device_failure(told) is told and is_lost(told)


@pytest.mark.parametrize("words", UNUSABLE)
def test_a_gpu_that_cannot_be_used_here(words):
    error = cuda_error(words)
    told = device_failure(error)
    assert not is_lost(error) and isinstance(told, RequestError)
    assert str(told).startswith(f"the GPU cannot be used: CUDA error: {words}; ") and UNUSABLE[words] in str(told)


@pytest.mark.parametrize("words", OTHERS)
def test_what_is_no_failure_of_a_gpu_is_told_only_where_nothing_else_can_be_tried(words):
    error = cuda_error(words)
    assert device_failure(error) is None and not is_lost(error)
    assert is_out_of_memory(error) == (words == "out of memory")
    told = failure_anywhere(error)
    assert type(told) is KvtuneError and "\n" not in str(told) and f"CUDA error: {words}; " in str(told)


@pytest.mark.parametrize("error", [ValueError("misaligned address"), RuntimeError("shapes"), KvtuneError("captions")])
def test_errors_of_others_are_left_alone(error):
    assert failure_anywhere(error) is None
    with pytest.raises(type(error)) as raised, device_failures_told():
        raise error
    assert raised.value is error


def test_what_a_failure_holds_of_a_lost_gpu_is_held_to_the_end():
    """Its memory cannot be given back any more, and PyTorch ends the process where that is tried."""
    gone = []

    class Held:
        def __del__(self):
            gone.append(self)

    def work():
        held = Held()
        raise cuda_error("misaligned address") if held else AssertionError

    with pytest.raises(LostDeviceError), device_failures_told():
        work()
    gc.collect()
    assert not gone


@pytest.mark.parametrize("words", UNUSABLE)
def test_a_gpu_for_which_other_packages_have_no_kernels(words):
    with (
        pytest.raises(RequestError, match=r"^the quantized layers cannot be run: CUDA error: "),
        device_failures_told(),
        in_a_line("the quantized layers cannot be run", on_device=True),
    ):
        raise cuda_error(words)


@pytest.mark.parametrize("words", [*LOST, *UNUSABLE])
def test_no_checkpoint_is_to_blame_for_a_gpu(words):
    with pytest.raises(KvtuneError, match=r"^the GPU "), device_failures_told(), in_a_line("cannot load a model"):
        raise cuda_error(words)
