"""Launches of Triton kernels on a machine without a GPU: each is bound and built for one, and nothing is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest


@contextmanager
def launches(arch: int = 90) -> Iterator[list[tuple[str, tuple[int, ...], str]]]:
    """Within the block, what would be launched on a GPU of compute capability ``arch``.

    Yields
    ------
    list
        Of each launch the kernel's name, its grid, and which of its builds it takes.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import jit
    from triton.runtime.jit import JITFunction

    made: list[tuple[str, tuple[int, ...], str]] = []
    run = JITFunction.run
    gpu = SimpleNamespace(
        get_current_device=lambda: "no GPU",
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", arch, 32),
    )

    def build(kernel, *arguments, grid, warmup, **named):
        built = run(kernel, *arguments, grid=grid, warmup=True, **named)
        made.append((kernel.fn.__name__, tuple(grid), built.hash))
        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", build)
        patch.setattr(jit, "driver", SimpleNamespace(active=gpu))
        yield made
