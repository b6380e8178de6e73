"""Workers that only pretend: captions at a set rate, without a model and without processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvtune.captioning.cluster.backend import WorkerDiedError
from kvtune.captioning.cluster.messages import Batch, Machine, Ready, Report
from kvtune.captioning.request import CaptionRequest, Work
from kvtune.models.model_facts import ModelFacts
from kvtune.models.registry import get_family

Written = tuple[str, int]
"""A caption and its tokens."""


def pretended_model() -> ModelFacts:
    """A model that nobody has."""
    family = get_family("demo")
    return ModelFacts(family, "demo", "demo", None, "float32", 16, family.default_prompt, None, "pretended")


@dataclass(eq=False)
class PretendedWorker:
    """One worker.

    Attributes
    ----------
    rate
        Captions a second.
    rows
        Captions that it works on at once; those that were begun first end first.
    """

    write: Callable[[CaptionRequest], Written]
    machine: Machine
    rate: float
    rows: int
    queue: dict[int, CaptionRequest] = field(default_factory=dict)
    run: int = 0
    since: float = 0.0
    """When the captions before were due."""
    captions: int = 0
    tokens: int = 0
    is_dead: bool = False
    hangs: bool = False
    ready: Ready | None = None
    """What it says once it has loaded the model; None for a model that nobody has."""

    def due(self) -> float:
        """When the next caption is; infinite for never."""
        return self.since + 1 / self.rate if self.queue and not self.hangs else math.inf

    def call(self, method: str, arguments: tuple[Any, ...], now: float) -> Any:
        """What a call of a method gives."""
        if method == "machine":
            return self.machine
        if method == "open":
            return self.ready or Ready(pretended_model(), self.rows, "")
        if method == "begin":
            self.queue.clear()
            (self.run,) = arguments
        elif method == "take":
            batch: Batch = arguments[0]
            if not self.queue:
                self.since = now
            for number, request in batch.requests:
                assert number not in self.queue
                self.queue[number] = request
        elif method == "drop":
            for number in arguments[0]:
                self.queue.pop(number, None)
        return None

    def report(self, now: float) -> Report:
        """The captions that are due."""
        report = Report(self.run, rows=self.rows)
        count = 0 if self.hangs else min(len(self.queue), int((now - self.since) * self.rate + 1e-6))
        self.since += count / self.rate
        for number in list(self.queue)[:count]:
            text, tokens = self.write(self.queue.pop(number))
            report.captions.append((number, text, tuple(range(tokens)), "eos"))
            self.tokens += tokens
        self.captions += count
        report.work = Work(0, self.tokens)
        return report


@dataclass(eq=False)
class _Promise:
    worker: PretendedWorker
    method: str
    value: Any = None
    until: float = -math.inf
    """When a report is there even if there is nothing to tell."""


class PretendedBackend:
    """Pretended workers behind the calls of :class:`kvtune.captioning.cluster.backend.Backend`.

    Parameters
    ----------
    rates
        Captions a second of each worker; places beyond them, should there be, have the last one's.
    write
        Makes a caption.
    rows
        Captions that a worker works on at once.
    clock, sleep
        Tell the time, and let it pass.
    """

    def __init__(
        self,
        rates: Sequence[float],
        write: Callable[[CaptionRequest], Written],
        rows: int = 256,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rates, self.rows, self.write = list(rates), rows, write
        self.clock, self.sleep = clock, sleep
        self.machine = Machine("here", "pretended", {})
        self.ready: Ready | None = None
        self.workers: list[PretendedWorker] = []
        self.cpu_seconds = 0.0
        """Processor time that pretending takes: where there are workers, the driver does not have it."""

    def places(self) -> int:
        return len(self.rates)

    def launch(self, place: int) -> PretendedWorker:
        rate = self.rates[min(place, len(self.rates) - 1)]
        worker = PretendedWorker(self.write, self.machine, rate, self.rows, ready=self.ready)
        self.workers.append(worker)
        return worker

    def call(self, handle: PretendedWorker, method: str, *arguments: Any) -> _Promise:
        if method == "report":
            return _Promise(handle, method, until=self.clock() + arguments[0])
        return _Promise(handle, method, None if handle.is_dead else handle.call(method, arguments, self.clock()))

    def wait(self, promises: Sequence[_Promise], seconds: float) -> list[_Promise]:
        begun = time.process_time()
        now = self.clock()
        first = min((self._kept_at(promise) for promise in promises), default=math.inf)
        if first > now:
            self.sleep(min(seconds, first - now))
            now = self.clock()
        kept = [promise for promise in promises if self._kept_at(promise) <= now + 1e-9]
        self.cpu_seconds += time.process_time() - begun
        return kept

    def _kept_at(self, promise: _Promise) -> float:
        if promise.method != "report" or promise.worker.is_dead:
            return -math.inf
        return min(promise.until, promise.worker.due())

    def result(self, promise: _Promise) -> Any:
        if promise.worker.is_dead:
            raise WorkerDiedError("it was killed")
        if promise.method != "report":
            return promise.value
        begun = time.process_time()
        report = promise.worker.report(self.clock())
        self.cpu_seconds += time.process_time() - begun
        return report

    def kill(self, handle: PretendedWorker) -> None:
        handle.is_dead = True

    def close(self) -> None:
        for worker in self.workers:
            worker.is_dead = True
