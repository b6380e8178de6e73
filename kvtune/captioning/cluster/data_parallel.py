"""Data parallelism: a captioner whose captions are written by workers, each with a whole model."""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kvtune.captioning.cluster.dispatcher import Dispatcher, Numbered
from kvtune.captioning.cluster.hang_watch import HangWatch
from kvtune.captioning.cluster.messages import Batch, Report, Settings
from kvtune.captioning.cluster.pool import Event, Joined, Left, Reported, WorkerPool
from kvtune.captioning.question import Asking
from kvtune.captioning.request import Caption, CaptionRequest, Work
from kvtune.errors import RequestError, check_count
from kvtune.methods import Method
from kvtune.models.model_facts import ModelFacts
from kvtune.models.options import Lanes, parse_lanes

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Between two looks at who works and who hangs."""


class DataParallelCaptioner(Asking):
    """Writes captions as :class:`kvtune.captioning.Captioner` does, on many devices.

    In float32 captions are the same for any number of workers, but for the order in which they come.

    Parameters
    ----------
    pool
        The workers; one at least is ready.
    prompt, max_new_tokens, lanes, cuda_graphs, keep_images
        As for :class:`kvtune.captioning.Captioner`; ``lanes`` are a worker's.
    watch
        Tells who hangs.
    """

    def __init__(
        self,
        pool: WorkerPool,
        prompt: str | None = None,
        max_new_tokens: int = 512,
        lanes: Lanes | str = "auto",
        cuda_graphs: bool = True,
        keep_images: bool = True,
        watch: HangWatch | None = None,
    ) -> None:
        check_count("max_new_tokens", max_new_tokens)
        self.pool = pool
        self.watch = watch or HangWatch()
        self.prompt = prompt
        self.settings = Settings(prompt, max_new_tokens, parse_lanes(lanes), cuda_graphs, keep_images)
        facts = next(iter(pool.roster.ready.values())).model
        self.vlm: ModelFacts = replace(facts, device_name=pool.roster.devices)
        """What is known of the model."""
        self._run: _Run | None = None

    @property
    def max_new_tokens(self) -> int:
        """Longest caption in tokens."""
        return self.settings.max_new_tokens

    @property
    def workers(self) -> dict[str, list[Any]]:
        """Who writes, and who did: ``in_words``, and ``workers`` one by one."""
        return {"in_words": self.pool.roster.lines(), "workers": self.pool.roster.entries()}

    def changed(self, **settings: Any) -> DataParallelCaptioner:
        """A captioner on the same workers with another prompt, max_new_tokens, lanes, cuda_graphs or keep_images."""
        return DataParallelCaptioner(self.pool, **asdict(self.settings) | settings, watch=self.watch)

    def check(self, method: Method) -> None:
        """Raise RequestError if a method cannot serve the model."""
        self.pool.ask("check", method)

    def withdraw(self, tag: Hashable) -> None:
        """Give no captions for requests of ``tag`` any more in this run; whoever works on them leaves them."""
        if self._run is not None:
            self._run.withdraw(tag)

    def run(
        self, requests: Iterable[CaptionRequest], on_work: Callable[[Work], None] = lambda work: None
    ) -> Iterator[Caption]:
        """Captions as they finish, in no fixed order.

        Parameters
        ----------
        requests
            Pulled from as workers want them.
        on_work
            Called several times a second with what is done so far. What it raises ends the run; captions that have
            come are given before.

        Raises
        ------
        RequestError, KvtuneError
            As :meth:`kvtune.captioning.Captioner.run`, whichever worker it happened to, and if no worker is left.
        """
        self.say_question()
        run = self._run = _Run(self.pool, self.watch, requests, self.settings)
        try:
            while not run.is_done:
                try:
                    run.turn()
                    on_work(run.work)
                except BaseException:
                    yield from run.captions()
                    raise
                yield from run.captions()
        finally:
            run.end()
            self._run = None

    def close(self) -> None:
        """End the workers."""
        self.pool.close()


class _Run:
    """One run: requests out, captions in."""

    numbers = itertools.count(1)
    runs = itertools.count(1)

    def __init__(
        self, pool: WorkerPool, watch: HangWatch, requests: Iterable[CaptionRequest], settings: Settings
    ) -> None:
        self.pool, self.watch, self.settings = pool, watch, settings
        self.number = next(self.runs)
        self.dispatcher = Dispatcher(requests, self.numbers)
        self.work = Work(rows=0)
        self._done: deque[Caption] = deque()
        self._error: Exception | None = None
        self._looked = -math.inf
        self._sizes: dict[Path, int | None] = {}
        self._was_drained = False
        for worker, ready in pool.roster.ready.items():
            self._join(worker, ready.rows)

    @property
    def is_done(self) -> bool:
        """Whether every request is answered or withdrawn, and every caption given."""
        return self.dispatcher.is_done and not self._done

    def turn(self) -> None:
        """Deal out what workers have room for, and see what has come."""
        self._deal()
        if self.dispatcher.is_done:
            return
        for event in self.pool.poll(POLL_SECONDS):
            self._happened(event)
        now = self.pool.clock()
        if now - self._looked >= POLL_SECONDS:
            self._looked = now
            self._look(now)
        if self._error is not None:
            raise self._error

    def captions(self) -> Iterator[Caption]:
        """The captions that have come, but for those that were withdrawn meanwhile."""
        while self._done:
            yield self._done.popleft()

    def withdraw(self, tag: Hashable) -> None:
        """Forget the requests of a tag, and captions of it that have come."""
        self.dispatcher.withdraw(tag)
        self._done = deque(caption for caption in self._done if caption.tag != tag)

    def end(self) -> None:
        """Let workers leave what they still have."""
        now = self.pool.clock()
        for worker in self.pool.roster.ready:
            self.pool.tell(worker, "begin", 0)
            self.watch.idle(worker)
            self.pool.roster.idle(worker, now)

    def _look(self, now: float) -> None:
        """See who works, and end who hangs."""
        for worker in self.pool.roster.ready:
            if self.dispatcher.held_by(worker):
                self.watch.busy(worker, now)
                self.pool.roster.busy(worker, now)
            else:
                self.watch.idle(worker)
                self.pool.roster.idle(worker, now)
        for hung in self.watch.hung(now):
            assert isinstance(hung, int)
            for event in self.pool.end(hung, f"it hangs, no work was seen for {self.watch.allowed(hung):.0f} s"):
                self._happened(event)
        self.work = replace(self.work, by="\n".join(self.pool.roster.lines()))

    def _join(self, worker: int, rows: int) -> None:
        self.pool.tell(worker, "begin", self.number)
        lanes = self.settings.lanes
        self.dispatcher.join(worker, rows if lanes == "auto" else lanes, self.pool.roster.speed(worker))
        self._was_drained = False

    def _deal(self) -> None:
        for worker, order in self.dispatcher.deal().items():
            assert isinstance(worker, int)
            if order.drop:
                self.pool.tell(worker, "drop", order.drop)
            if order.send:
                self.pool.tell(worker, "take", Batch(self.settings, order.send, self._sizes_of(order.send)))
        if self.dispatcher.is_drained and not self._was_drained:
            for worker in self.pool.roster.ready:
                self.pool.tell(worker, "no_more")
        self._was_drained = self.dispatcher.is_drained

    def _sizes_of(self, requests: list[Numbered]) -> dict[Path, int]:
        sizes = {}
        for _, request in requests:
            path = request.image
            if isinstance(path, Path):
                if path not in self._sizes:
                    self._sizes[path] = path.stat().st_size if path.is_file() else None
                if (size := self._sizes[path]) is not None:
                    sizes[path] = size
        return sizes

    def _happened(self, event: Event) -> None:
        match event:
            case Joined(worker, ready):
                self._join(worker, ready.rows)
            case Left(worker, reason):
                log.info("worker %d is gone: %s", worker, reason)
                self.dispatcher.lose(worker)
                self.watch.forget(worker)
                self._was_drained = False
            case Reported(worker, report):
                self._reported(worker, report)

    def _reported(self, worker: int, report: Report) -> None:
        now = self.pool.clock()
        last, work = self.pool.roster.worked(worker, report.work), report.work
        if work != last or report.captions:
            self.watch.worked(worker, now)
        self.work = replace(
            work.since(last).after(self.work),
            in_flight=self.pool.roster.in_flight,
            room=sum(ready.rows for ready in self.pool.roster.ready.values()),
            rows=self.dispatcher.held,
            by=self.work.by,
        )
        if report.run != self.number:
            return
        if report.rows is not None:
            self.dispatcher.resize(worker, report.rows)
        self.pool.roster.wrote(worker, now, len(report.captions))
        for number, text, token_ids, reason in report.captions:
            request = self.dispatcher.answer(worker, number)
            if request is not None:
                self._done.append(Caption(request.image_id, text, token_ids, reason, request.tag))
        for path in report.absent:
            self.pool.tell(worker, "bring", path, _content(path))
        self._error = self._error or report.error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"image {path} cannot be read: {error.strerror or error}") from None
