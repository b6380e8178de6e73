"""Where the time of a run of the engine went: steps of each width, prompts, neither; and how long the host waited.

A device that is busy all the time has a host that waits for it; where the host waits for nothing, it is what the run
took its time for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kvtune.bench.engine.device import mark, seconds_between, wait_for
from kvtune.captioning import decoding
from kvtune.captioning.graphs import StepGraphs
from kvtune.captioning.grid import Grid
from kvtune.captioning.host_copy import HostCopy
from kvtune.captioning.paged_grid import PagedGrid


class Spent:
    """Counts and times what the engine does within :meth:`counted`, by a GPU's own clock where there is one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[tuple[Any, Any, int]] = []
        self._prompts: list[tuple[Any, Any, int]] = []
        self._captures: list[float] = []
        self._waited = self._seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around one run."""
        prefill, read = decoding.prefill, HostCopy.read

        def timed_prefill(vlm: Any, prompts: Any, *given: Any) -> Iterator[Any]:
            before = mark(self._device)
            yield from prefill(vlm, prompts, *given)
            self._prompts.append((before, mark(self._device), len(prompts)))

        def timed_read(copy: HostCopy) -> Any:
            begun = time.perf_counter()
            tokens = read(copy)
            self._waited += time.perf_counter() - begun
            return tokens

        decoding.prefill, HostCopy.read = timed_prefill, timed_read  # type: ignore[assignment, method-assign]
        begun = time.perf_counter()
        try:
            with around_steps(self._step), capture_seconds() as self._captures:
                yield
        finally:
            self._seconds = time.perf_counter() - begun
            decoding.prefill, HostCopy.read = prefill, read  # type: ignore[method-assign]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready.

        ``seconds`` of all; ``steps`` by ``width``, the widest first; ``prompts``; ``captures`` of graphs, by the host's
        clock and part of the steps; ``host_waited``, the seconds in which the host waited for tokens.
        """
        wait_for(self._device)
        widths = sorted({width for *_, width in self._steps}, reverse=True)
        by_width = {width: [one for one in self._steps if one[2] == width] for width in widths}
        return {
            "seconds": self._seconds,
            "steps": [
                {"width": width, "count": len(steps), "seconds": sum(map(_between, steps))}
                for width, steps in by_width.items()
            ],
            "prompts": {
                "count": sum(count for *_, count in self._prompts),
                "batches": len(self._prompts),
                "seconds": sum(map(_between, self._prompts)),
            },
            "captures": {"count": len(self._captures), "seconds": sum(self._captures)},
            "host_waited": self._waited,
        }

    def _step(self, step: Callable[[], Tensor], rows: int) -> Tensor:
        before = mark(self._device)
        tokens = step()
        self._steps.append((before, mark(self._device), len(tokens)))
        return tokens


def _between(marks: tuple[Any, Any, int]) -> float:
    before, after, _ = marks
    return seconds_between(before, after)


@contextmanager
def around_steps(around: Callable[[Callable[[], Tensor], int], Tensor]) -> Iterator[None]:
    """Within the block, ``around(step, rows)`` makes every decode step of the engine, of ``rows`` captions."""
    originals = {kind: kind.step for kind in (Grid, PagedGrid)}

    def timed(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda grid, running: around(lambda: original(grid, running), len(running))

    for kind, original in originals.items():
        kind.step = timed(original)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.step = original  # type: ignore[method-assign]


@contextmanager
def capture_seconds() -> Iterator[list[float]]:
    """How long each capture of a CUDA graph takes within the block."""
    seconds: list[float] = []
    original = StepGraphs.capture

    def timed(self: StepGraphs, shape: Hashable, step: Callable[[], None]) -> bool:
        begun = time.perf_counter()
        captured = original(self, shape, step)
        seconds.append(time.perf_counter() - begun)
        return captured

    StepGraphs.capture = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        StepGraphs.capture = original  # type: ignore[method-assign]
