"""The engine's decode steps, each timed for itself: what methods add to one."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kvtune.bench.engine.device import mark, seconds_between, wait_for
from kvtune.bench.engine.spent import around_steps
from kvtune.bench.engine.workload import Workload
from kvtune.captioning.captioner import Captioner
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
    without_processor_ms, with_processor_ms
        Least processor time of this process for a step in each run, which other programs that run beside it change
        less; on a GPU, what the host does to launch a step.
    """

    rows: int
    steps: int
    without_ms: list[float]
    without_processor_ms: list[float]
    with_ms: list[float]
    with_processor_ms: list[float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the time with the method over that without: median and range over pairs."""
        times = _ratios("", self.with_ms, self.without_ms)
        of_processor = _ratios("processor_", self.with_processor_ms, self.without_processor_ms)
        return dataclasses.asdict(self) | {"pairs": len(self.with_ms)} | times | of_processor


def _ratios(kind: str, more: Sequence[float], less: Sequence[float]) -> dict[str, Any]:
    ratios = [one / other for one, other in zip(more, less, strict=True)]
    return {f"{kind}ratio": statistics.median(ratios), f"{kind}ratio_range": [min(ratios), max(ratios)]}


def time_steps(
    work: Workload, methods: Mapping[str, Method], rows: int, trials: int, pairs: int = 5
) -> Iterator[dict[str, StepTimes]]:
    """Time full steps of ``rows`` captions, ``trials`` of an image, without a method and with each, in turn.

    All captions begin together and are forced to equal lengths, so that every step has every row. Vision tower,
    prefill and the capture of graphs are not timed. On a GPU a step is timed by the device's own clock.

    Yields
    ------
    dict
        After each turn, of which there are ``pairs``, what is known by now of each method.
    """
    log.info("steps of %d captions without a method and with %s, %d times", rows, ", ".join(methods), pairs)
    captioner = work.captioner(rows)
    ways: dict[str | None, Method | None] = {None: None}
    ways.update(methods.items())
    clocked: dict[str | None, list[tuple[float, float]]] = {name: [] for name in ways}
    widest: dict[str | None, tuple[int, int]] = {}

    def columns(name: str | None) -> list[list[float]]:
        return [list(column) for column in zip(*clocked[name], strict=True)]

    for _ in range(pairs):
        for name, method in ways.items():
            clock = StepClock(work.vlm.device)
            with around_steps(clock.step):
                decode_together(work, captioner, method, rows, trials)
            rows_of_step, times = clock.widest()
            later = times[len(times) // 2 :]
            clocked[name].append((statistics.median(ms for ms, _ in later), min(ms for _, ms in later)))
            widest[name] = rows_of_step, len(later)
        yield {name: StepTimes(*widest[name], *columns(None), *columns(name)) for name in methods}


def decode_together(work: Workload, captioner: Captioner, method: Method | None, rows: int, trials: int) -> None:
    """Write ``rows`` captions at once, ``trials`` of an image, all of the same length."""
    tokens = min(_TOKENS.get(work.vlm.device.type, _TOKENS["cpu"]), work.max_new_tokens)
    numbers = work.all
    images = [numbers[row // trials % len(numbers)] for row in range(rows)]
    with work.no_ends():
        for _ in captioner.run(CaptionRequest(image, work.images[image], method, 0, tokens) for image in images):
            pass


class StepClock:
    """Times steps, by events on a GPU's own clock, elsewhere by the host's, and by this process's time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[Any, Any, float, int]] = []

    def step(self, step: Callable[[], Tensor], rows: int) -> Tensor:
        before, begun = mark(self._device), time.process_time()
        tokens = step()
        spent = 1e3 * (time.process_time() - begun)
        self._marks.append((before, mark(self._device), spent, rows))
        return tokens

    def widest(self) -> tuple[int, list[tuple[float, float]]]:
        """The most rows that a step had, and of each step that had them milliseconds, and those of the processor."""
        most = max(rows for *_, rows in self._marks)
        wait_for(self._device)
        return most, [
            (1e3 * seconds_between(before, after), spent) for before, after, spent, rows in self._marks if rows == most
        ]
