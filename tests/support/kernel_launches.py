"""Launches of Triton kernels on a machine without a GPU: each is bound and built for one, and nothing is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import pytest


class Launch(NamedTuple):
    """A kernel, its grid, which of its builds it takes, and what that is in PTX."""

    kernel: str
    grid: tuple[int, ...]
    build: str
    code: str


@contextmanager
def launches(arch: int = 90) -> Iterator[list[Launch]]:
    """Within the block, what would be launched on a GPU of compute capability ``arch``."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import jit
    from triton.runtime.jit import JITFunction

    made: list[Launch] = []
    run = JITFunction.run
    gpu = SimpleNamespace(
        get_current_device=lambda: "no GPU",
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", arch, 32),
    )

    def build(kernel, *arguments, grid, warmup, **named):
        built = run(kernel, *arguments, grid=grid, warmup=True, **named)
        made.append(Launch(kernel.fn.__name__, tuple(grid), built.hash, built.asm["ptx"]))
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", build)
        patch.setattr(jit, "driver", SimpleNamespace(active=gpu))
        yield made
