"""CUDA graphs of the decode step: a step's hundreds of kernels launched as one."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

import torch

from kvtune.device_errors import is_lost, is_out_of_memory
from kvtune.models import VisionLanguageModel
from kvtune.text import first_line

log = logging.getLogger(__name__)

_MOST_GRAPHS = 32
"""Graphs kept at most: some widths of a step by some numbers of tiles; new kinds of methods make older ones useless."""

_SPARE = 2**30
"""Bytes that must be free beside those of a step, else a capture has torch's allocator give back what it has cached."""

_WITHOUT_END: list[torch.cuda.CUDAGraph] = []
"""Of captures that could not be ended; torch's allocators go on asking them which allocations are theirs."""


class StepGraphs:
    """Runs a step that changes tensors in place, and replays it from a graph when it comes again in the same shape.

    ``device`` must be the current CUDA device whenever a step is run. A shape is run once as it is, which warms up
    libraries and compiles kernels, and captured when it comes again.

    Parameters
    ----------
    takes
        Bytes that a step takes for a moment. Those of graphs are their own: what steps had before stays cached.
    """

    def __init__(self, device: torch.device, takes: int = 0) -> None:
        self._device, self._takes = device, takes
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._seen: set[Hashable] = set()
        self._pool = torch.cuda.graph_pool_handle()
        self._held = 0
        """Bytes that the pool has been given."""
        self._off = False

    def run(self, shape: Hashable, step: Callable[[], None]) -> None:
        """Do one step.

        Parameters
        ----------
        shape
            Equal only if a graph captured for one such step is right for the other.
        """
        if self._off or shape not in self._seen:
            self._seen.add(shape)
            step()
            return
        if shape not in self._graphs and not self.capture(shape, step):
            step()
            return
        self._graphs[shape].replay()

    def capture(self, shape: Hashable, step: Callable[[], None]) -> bool:
        """Capture a graph of the step for steps of this shape; whether there is one."""
        if len(self._graphs) == _MOST_GRAPHS:
            torch.cuda.synchronize(self._device)  # the latest may still run
            self._graphs.clear()
            # What is left of a pool whose graphs are gone must not be captured into again.
            self._pool = torch.cuda.graph_pool_handle()
            self._held = 0
        if (free := self._free()) < self._takes - self._held + _SPARE:
            torch.cuda.empty_cache()
            free = self._free()
        graph = torch.cuda.CUDAGraph()
        failed: list[str] = []
        try:
            with torch.cuda.stream(capture_stream(self._device)):
                # The device goes on, and other threads copy and allocate. torch.cuda.graph would wait for the device
                # first and give back all that is cached of its memory and of pinned memory, which the next prompts
                # would have to be given again.
                graph.capture_begin(self._pool, capture_error_mode="thread_local")
                try:
                    step()
                except RuntimeError as error:
                    failed.append(_said(error))
                    raise
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            self._abandon(graph)
            if is_out_of_memory(error) or is_lost(error):
                raise
            # A capture that fails may fail once more at its end. An error that a variable here held, or that is raised
            # again out of the other, would hold the grid until garbage is collected.
            if error.__context__ is not None:
                if is_out_of_memory(error.__context__):
                    raise torch.OutOfMemoryError(first_line(error.__context__)) from None
                if is_lost(error.__context__) or not isinstance(error.__context__, Exception):  # such as Ctrl-C
                    raise error.__context__ from None
            failed.append(_said(error))
            log.warning("decoding without CUDA graphs, for this model's step cannot be captured: %s", failed[0])
            log.debug("where the capture failed", exc_info=True)
            self._off = True
            return False
        self._graphs[shape] = graph
        self._held = min(self._takes, self._held + max(0, free - self._free()))
        return True

    def _free(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0]

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """Tell torch's allocator that a capture is over, of which it hears nothing where the capture cannot be ended.

        While it believes that one is under way it gives no memory back, not even where a new grid has none.
        """
        with suppress(RuntimeError):  # which says that it was ended
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), self._pool)
            _WITHOUT_END.append(graph)


def _said(error: Exception) -> str:
    """What an error says, and the line of code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{first_line(error)} ({Path(frame.filename).name}:{frame.lineno})"


@functools.cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream of ``device`` to capture on: torch's own is of the device on which the process captured first.

    One for all grids, since libraries keep a workspace for every stream that they have seen.
    """
    return torch.cuda.Stream(device)


def no_graphs_for(vlm: VisionLanguageModel) -> str | None:
    """Why CUDA graphs cannot hold a model's steps; None where they can."""
    if len(vlm.cards) > 1:
        return "the model is on several GPUs"
    return "its 8-bit layers wait for the host" if vlm.waits_in_layers else None


def step_graphs(device: torch.device, takes: int = 0) -> StepGraphs | None:
    """Graphs for a device that has them; see :class:`StepGraphs`."""
    return StepGraphs(device, takes) if device.type == "cuda" else None
