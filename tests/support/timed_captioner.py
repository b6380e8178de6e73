"""An engine whose captions take time by a clock of its own, as decoding side by side does; and that clock."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import SimpleNamespace
from typing import Any

from fake_search import caption_text, chance

PROMPTS_TOGETHER = 8


@dataclass
class Clock:
    """Tells the time, which passes when it is told so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Machine:
    """What work costs.

    Attributes
    ----------
    step, row, image
        Seconds of a step, and more for each caption and for each image that it decodes.
    prompt
        Seconds of a prompt.
    rows
        Captions at once.
    mean, spread
        Tokens of a caption, and how far they may be from that as a share of it.
    load
        Factor on all times, given the time.
    """

    step: float = 0.01
    row: float = 1e-4
    image: float = 2e-4
    prompt: float = 5e-3
    rows: int = 1024
    mean: float = 64
    spread: float = 0.25
    load: Callable[[float], float] = field(default=lambda now: 1.0)

    def tokens(self, request: Any) -> int:
        """Tokens of a caption."""
        luck = chance("tokens", request.image_id, request.tag)
        return max(1, round(self.mean * (1 + self.spread * (2 * luck - 1))))


@dataclass
class _Row:
    request: Any
    length: int
    written: int = 0


class TimedCaptioner:
    """Captions many requests side by side; a request starts as soon as there is room.

    Attributes
    ----------
    asked
        (tag, image id) of each request that was begun.
    """

    def __init__(self, machine: Machine, clock: Clock) -> None:
        self.machine, self.clock = machine, clock
        self.asked: list[tuple[Any, int]] = []
        self.withdrawn: set[Any] = set()

    def withdraw(self, tag: Any) -> None:
        self.withdrawn.add(tag)

    def run(self, requests: Iterable[Any], on_work: Callable[[Any], None] = lambda work: None) -> Iterator[Any]:
        source = iter(requests)
        work = SimpleNamespace(prompts=0, tokens=0, in_flight=0)
        running: list[_Row] = []
        while True:
            running = [row for row in running if row.request.tag not in self.withdrawn]
            work.in_flight = sum(row.written for row in running)
            new = list(islice(source, self.machine.rows - len(running)))
            there = {row.request.image_id for row in running}
            images = {request.image_id for request in new} - there
            for begin in range(0, len(images), PROMPTS_TOGETHER):
                together = min(PROMPTS_TOGETHER, len(images) - begin)
                self._pass(together * self.machine.prompt)
                work.prompts += together
                on_work(work)
            self.asked += [(request.tag, request.image_id) for request in new]
            running += [_Row(request, self.machine.tokens(request)) for request in new]
            if not running:
                return
            images = {row.request.image_id for row in running}
            self._pass(self.machine.step + self.machine.row * len(running) + self.machine.image * len(images))
            for row in running:
                row.written += 1
            ended = [row for row in running if row.written == row.length]
            running = [row for row in running if row.written < row.length]
            work.tokens += len(running) + len(ended)
            work.in_flight = sum(row.written for row in running)
            for row in ended:
                if row.request.tag not in self.withdrawn:
                    yield self._caption(row)
            on_work(work)

    def _pass(self, seconds: float) -> None:
        self.clock.now += seconds * self.machine.load(self.clock.now)

    def _caption(self, row: _Row) -> Any:
        return SimpleNamespace(
            image_id=row.request.image_id,
            text=caption_text(row.request.image_id, row.request.method, shared_luck=True),
            token_ids=tuple(range(row.length)),
            finish_reason="eos",
            tag=row.request.tag,
        )
