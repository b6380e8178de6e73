"""The engine's decode steps, each timed for itself: what a method adds to one."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kvtune.bench.engine.workload import Workload
from kvtune.captioning.captioner import Captioner
from kvtune.captioning.grid import Grid
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.captioning.request import CaptionRequest
from kvtune.methods import Method

log = logging.getLogger(__name__)

_TOKENS = {"cuda": 96, "cpu": 24}
"""Length of the captions, of which the later half of the steps is timed: captions of about 110 tokens are 55 long on
average while they are written, and by then CUDA graphs are captured."""


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Decode steps with a method beside steps without.

    Attributes
    ----------
    rows
        Captions decoded in each step.
    steps
        Timed in each run; a run without and one with the method are a pair.
    without_ms, with_ms
        Median milliseconds of a step in each run.
    """

    rows: int
    steps: int
    without_ms: list[float]
    with_ms: list[float]

    @property
    def ratios(self) -> list[float]:
        """Time with the method over time without, of each pair."""
        return [more / less for more, less in zip(self.with_ms, self.without_ms, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "pairs": len(self.ratios),
            "ratio": statistics.median(self.ratios),
            "ratio_range": [min(self.ratios), max(self.ratios)],
        }


def time_steps(work: Workload, method: Method, rows: int, trials: int, pairs: int = 5) -> StepTimes:
    """Time full steps of ``rows`` captions, ``trials`` of an image, without a method and with one, in turn.

    All captions begin together and are forced to equal lengths, so that every step has every row. Vision tower,
    prefill and the capture of graphs are not timed. On a GPU a step is timed by the device's own clock.
    """
    log.info("steps of %d captions with KVSmooth and without, %d pairs", rows, pairs)
    captioner = work.captioner(rows)
    medians: dict[bool, list[float]] = {False: [], True: []}
    steps = 0
    for _ in range(pairs):
        for smoothed in (False, True):
            clock = StepClock(work.vlm.device)
            with around_steps(clock.step):
                decode_together(work, captioner, method if smoothed else None, rows, trials)
            rows_of_step, times = clock.widest()
            later = times[len(times) // 2 :]
            medians[smoothed].append(statistics.median(later))
            steps = len(later)
    return StepTimes(rows_of_step, steps, medians[False], medians[True])


def decode_together(work: Workload, captioner: Captioner, method: Method | None, rows: int, trials: int) -> None:
    """Write ``rows`` captions at once, ``trials`` of an image, all of the same length."""
    tokens = min(_TOKENS.get(work.vlm.device.type, _TOKENS["cpu"]), work.max_new_tokens)
    numbers = work.all
    images = [numbers[row // trials % len(numbers)] for row in range(rows)]
    with work.no_ends():
        for _ in captioner.run(CaptionRequest(image, work.images[image], method, 0, tokens) for image in images):
            pass


class StepClock:
    """Times steps: by events on a GPU's own clock, elsewhere by the host's."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._marks: list[tuple[Any, Any, int]] = []

    def step(self, step: Callable[[], Tensor], rows: int) -> Tensor:
        before = self._mark()
        tokens = step()
        self._marks.append((before, self._mark(), rows))
        return tokens

    def widest(self) -> tuple[int, list[float]]:
        """The most rows that a step had, and the milliseconds of each step that had them."""
        most = max(rows for *_, rows in self._marks)
        full = [(before, after) for before, after, rows in self._marks if rows == most]
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
            return most, [before.elapsed_time(after) for before, after in full]
        return most, [1e3 * (after - before) for before, after in full]

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


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
