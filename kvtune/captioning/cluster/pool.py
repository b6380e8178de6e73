"""Workers that come and go: launched, looked at before they are let in, replaced when they die."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kvtune.captioning.cluster.admission import Admission
from kvtune.captioning.cluster.backend import Backend, WorkerDiedError
from kvtune.captioning.cluster.messages import Machine, Ready, Report
from kvtune.captioning.cluster.roster import Roster
from kvtune.device_errors import failure_anywhere
from kvtune.errors import KvtuneError, RequestError

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
"""A worker that has nothing to tell says so after as long."""

GATHER_SECONDS = 20.0
"""So long after the first worker has come up, the others of the beginning are waited for."""

START_SECONDS = 300.0
"""So long it is waited for a place for a single worker."""

GROW_SECONDS = 5.0
"""Between two looks at whether there is room for more workers."""

DEATHS_IN_A_ROW = 3
"""Workers that died in one place before they wrote a caption; then that place is given up."""


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    worker: int
    ready: Ready


@dataclass(frozen=True)
class Left:
    """A worker that was ready is gone."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Reported:
    """A worker tells what it did."""

    worker: int
    report: Report


Event = Joined | Left | Reported


@dataclass
class _Worker:
    number: int
    place: int
    handle: Any
    machine: Machine | None = None
    is_ready: bool = False
    has_written: bool = False


class WorkerPool:
    """Keeps as many workers at work as there are places.

    A worker says where it runs before it loads the model. One with other versions than the driver's, or on another
    kind of device than most, is not let in unless ``mixed``: in half precision its captions would differ. One with
    other weights than the first that was ready never is.

    Parameters
    ----------
    backend
        Where they run.
    versions
        Those of the driver.
    mixed
        Whether versions and devices may differ.
    on_note
        Is told what is to be known of a worker, in a line.
    clock
        Tells the time in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        versions: dict[str, str],
        mixed: bool = False,
        on_note: Callable[[str], None] = log.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend, self.roster = backend, Roster()
        self.on_note = on_note
        self.clock = clock
        self._admission = Admission(versions, mixed)
        self._workers: dict[int, _Worker] = {}
        self._promises: dict[Any, tuple[str, _Worker]] = {}
        self._deaths: dict[int, int] = {}
        """Place -> workers that died there one after the other without a caption."""
        self._closed: dict[int, str] = {}
        """Places that were given up, and why."""
        self._launched = 0
        self._grown = self._came_up = clock()

    def start(self) -> None:
        """Launch workers, and wait until one is ready and the others are, or cannot be as soon.

        Raises
        ------
        RequestError
            If no worker can do what is asked for; the message is the first one's.
        KvtuneError
            If none comes up.
        """
        self._grow()
        self._gather()
        while not self.roster.ready or self._opening():
            self.poll(REPORT_SECONDS)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of a worker that is ready, and wait for what it returns."""
        while True:
            for number in list(self.roster.ready):
                try:
                    return self.backend.result(self.backend.call(self._workers[number].handle, method, *arguments))
                except WorkerDiedError as error:
                    log.info("worker %d: %s", number, error)
            self.poll(REPORT_SECONDS)

    def tell(self, worker: int, method: str, *arguments: Any) -> None:
        """Call a method of a worker without waiting; should the worker be gone, its report says so."""
        if worker in self._workers:
            self.backend.call(self._workers[worker].handle, method, *arguments)

    def poll(self, seconds: float) -> list[Event]:
        """What has happened, as soon as anything has, or nothing after so many seconds.

        Raises
        ------
        RequestError, KvtuneError
            If no worker is left and none can be expected.
        """
        self._grow()
        events: list[Event] = []
        for promise in self.backend.wait(list(self._promises), seconds):
            about, worker = self._promises.pop(promise)
            try:
                told = self.backend.result(promise)
            except WorkerDiedError as error:
                events += self._died(worker, str(error))
            except Exception as error:
                if about == "report":
                    raise
                self._give_up(worker, error)
            else:
                events += self._told(worker, about, told)
        self._check_somebody_is_left()
        return events

    def end(self, worker: int, reason: str) -> Iterable[Event]:
        """Kill a worker, which is replaced."""
        if worker not in self._workers:
            return []
        found = self._workers[worker]
        self.backend.kill(found.handle)
        self._promises = {promise: each for promise, each in self._promises.items() if each[1] is not found}
        return self._died(found, reason)

    def close(self) -> None:
        """End all workers."""
        self._workers, self._promises = {}, {}
        self.backend.close()

    def _opening(self) -> bool:
        """Whether a worker that has come up is still loading its model."""
        return any(about == "open" for about, _ in self._promises.values())

    def _gather(self) -> None:
        """Wait for workers to come up, and see what kind of device most have."""
        waited = list(self._promises)
        begun = self.clock()
        while waited:
            up = self._come_up()
            if self.clock() - (self._came_up if up else begun) > (GATHER_SECONDS if up else START_SECONDS):
                break
            for promise in self.backend.wait(waited, REPORT_SECONDS):
                waited.remove(promise)
                with contextlib.suppress(Exception):  # said when its turn comes
                    self._promises[promise][1].machine = self.backend.result(promise)
                    self._came_up = self.clock()
        self._admission.go_by(worker.machine for worker in self._come_up() if worker.machine is not None)

    def _come_up(self) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.machine is not None]

    def _grow(self) -> None:
        now = self.clock()
        if self._launched and now - self._grown < GROW_SECONDS:
            return
        self._grown = now
        taken = {worker.place for worker in self._workers.values()} | set(self._closed)
        for place in range(self.backend.places()):
            if place not in taken:
                self._launch(place)

    def _launch(self, place: int) -> None:
        worker = _Worker(self._launched, place, self.backend.launch(place))
        self._launched += 1
        self._workers[worker.number] = worker
        self._promise("machine", worker)

    def _promise(self, about: str, worker: _Worker, *arguments: Any) -> None:
        self._promises[self.backend.call(worker.handle, about, *arguments)] = about, worker

    def _told(self, worker: _Worker, about: str, told: Any) -> Iterable[Event]:
        if about == "machine":
            worker.machine, self._came_up = told, self.clock()
            if (why := self._admission.why_not(told)) is not None:
                self._give_up(worker, RequestError(why))
            else:
                self._promise("open", worker)
            return
        if about == "open":
            assert worker.machine is not None
            if (why := self._admission.other_weights(worker.machine, told)) is not None:
                self._give_up(worker, RequestError(why))
                return
            worker.is_ready = True
            self.roster.join(worker.number, worker.machine, told)
            self._promise("report", worker, REPORT_SECONDS)
            yield Joined(worker.number, told)
            return
        if told.captions:
            worker.has_written = True
            self._deaths.pop(worker.place, None)
        yield Reported(worker.number, told)
        if told.lost is None:
            self._promise("report", worker, REPORT_SECONDS)
        else:
            yield from self.end(worker.number, told.lost)

    def _died(self, worker: _Worker, reason: str) -> Iterable[Event]:
        """A worker is gone; another takes its place unless too many died there."""
        del self._workers[worker.number]
        if not self._come_up():
            self._came_up = self.clock()
        node = worker.machine.node if worker.machine is not None else f"place {worker.place}"
        if not worker.has_written:
            self._deaths[worker.place] = self._deaths.get(worker.place, 0) + 1
        if self._deaths.get(worker.place, 0) >= DEATHS_IN_A_ROW:
            self._closed[worker.place] = reason
            self.on_note(f"worker on {node} is given up after {DEATHS_IN_A_ROW} deaths: {reason}")
        else:
            self.on_note(f"worker on {node} is lost and is replaced: {reason}")
            self._launch(worker.place)
        if worker.is_ready:
            self.roster.lose(worker.number, reason, self.clock())
            return [Left(worker.number, reason)]
        return []

    def _give_up(self, worker: _Worker, error: Exception) -> None:
        """A worker cannot do what is asked for; its place stays empty."""
        error = failure_anywhere(error) or error
        del self._workers[worker.number]
        self.backend.kill(worker.handle)
        self._closed[worker.place] = str(error)
        if not self._workers:
            if isinstance(error, KvtuneError):
                raise error
            raise KvtuneError(f"no worker can write captions: {type(error).__name__}: {error}") from error
        self.on_note(f"a worker is left out: {error}")

    def _check_somebody_is_left(self) -> None:
        if not self._workers and self._closed:
            raise KvtuneError(f"no worker is left: {next(reversed(self._closed.values()))}")
        if not self._come_up() and self.clock() - self._came_up > START_SECONDS:
            raise KvtuneError(
                f"no worker is left, and none of its {len(self._workers)} places could be taken in "
                f"{START_SECONDS:.0f} s; see that the cluster has free GPUs (ray status)"
            )
        if self._come_up():
            self._came_up = self.clock()
