"""An engine whose captions take time by a clock of its own, as decoding side by side does; and that clock."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fake_search import caption_text, chance

from kvtune.captioning.cost_model import CPU, GPU, Shape, lanes_by_image
from kvtune.captioning.request import Work
from kvtune.captioning.scheduler import Placement, Scheduler, packing

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
    step, row, image, position
        Seconds of a step, and more for each caption, image and token of text that it reads.
    prompt
        Seconds of a prompt.
    rows
        Captions at once.
    by_image
        Whether images have lanes of their own, as on a CPU.
    mean, spread
        Tokens of a caption, and how far they may be from that as a share of it.
    load
        Factor on all times, given the time.
    """

    step: float = 0.01
    row: float = 1e-4
    image: float = 2e-4
    position: float = 1e-6
    prompt: float = 5e-3
    rows: int = 1024
    by_image: bool = False
    mean: float = 64
    spread: float = 0.25
    load: Callable[[float], float] = field(default=lambda now: 1.0)

    def tokens(self, request: Any) -> int:
        """Tokens of a caption."""
        luck = chance("tokens", request.image_id, request.tag)
        return max(1, round(self.mean * (1 + self.spread * (2 * luck - 1))))


class Queue:
    """Gives free rows to requests in the order in which they wait, as a GPU's scheduler does."""

    def __init__(self, rows: int) -> None:
        self._free = list(range(rows))
        self._waiting: list[Any] = []
        self._running: dict[int, Any] = {}
        self._images: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> list[Placement[Any]]:
        return [Placement(0, row, request) for row, request in self._running.items()]

    def add(self, key: int, request: Any) -> None:
        self._waiting.append(request)

    def place(self) -> tuple[dict[int, int], list[Placement[Any]]]:
        loads, starts = {}, []
        while self._waiting and self._free:
            request, row = self._waiting.pop(0), self._free.pop()
            if not self._images[request.image_id]:
                loads[row] = request.image_id
            self._images[request.image_id] += 1
            self._running[row] = request
            starts.append(Placement(0, row, request))
        return loads, starts

    def finish(self, row: int) -> None:
        self._images[self._running.pop(row).image_id] -= 1
        self._free.append(row)

    def withdraw(self, unwanted: Callable[[Any], bool]) -> None:
        self._waiting = [request for request in self._waiting if not unwanted(request)]
        for row in [row for row, request in self._running.items() if unwanted(request)]:
            self.finish(row)


def running_of(scheduler: Any) -> dict[int, Any]:
    """Row -> the request that it decodes."""
    return {placement.row: placement.request for placement in scheduler.running}


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
        machine = self.machine
        work = Work(room=machine.rows, by_image=machine.by_image)
        source = list(requests)
        if not source:
            return
        images = len({request.image_id for request in source})
        shape = lanes_by_image(machine.rows, len(source), images) if machine.by_image else Shape(machine.rows, 1)
        scheduler: Any = Scheduler(shape.groups, shape.lanes) if machine.by_image else Queue(machine.rows)
        self._rows = shape.rows
        for request in source:
            scheduler.add(request.image_id, request)
        step = gone = 0
        begun: dict[int, int] = {}  # row -> the step before its first token
        while True:
            if len(self.withdrawn) > gone:
                gone = len(self.withdrawn)
                kept = {row for row, request in running_of(scheduler).items() if request.tag not in self.withdrawn}
                scheduler.withdraw(lambda request: request.tag in self.withdrawn)
                for row in begun.keys() - kept:
                    work.in_flight -= step - begun.pop(row)
            loads, starts = scheduler.place()
            for begin in range(0, len(loads), PROMPTS_TOGETHER):
                together = min(PROMPTS_TOGETHER, len(loads) - begin)
                self._pass(together * machine.prompt)
                work.prompts += together
                work.prompts_cost += together * machine.prompt / machine.row
                on_work(work)
            for placement in starts:
                self.asked.append((placement.request.tag, placement.request.image_id))
                begun[placement.row] = step
            running = running_of(scheduler)
            if not running:
                return
            self._pass(
                self._step(work, shape, scheduler.waiting, {row: step + 1 - begun[row] for row in running}, running)
            )
            step += 1
            work.tokens += len(running)
            work.in_flight += len(running)
            for row, request in running.items():
                if step - begun[row] == machine.tokens(request):
                    scheduler.finish(row)
                    tokens = step - begun.pop(row)
                    work.in_flight -= tokens
                    if request.tag not in self.withdrawn:
                        yield self._caption(request, tokens)
            on_work(work)

    def _step(self, work: Work, shape: Shape, waiting: int, ages: dict[int, int], running: dict[int, Any]) -> float:
        """Seconds of a step, whose cost by the engine's own reckoning is added to the work."""
        machine = self.machine
        if machine.by_image:
            longest: dict[int, int] = {}
            for row, age in ages.items():
                longest[row // shape.lanes] = max(longest.get(row // shape.lanes, 0), age)
            if not waiting and len(ages) <= 2 / 3 * self._rows:
                left = Counter(request.image_id for request in running.values())
                groups, lanes = packing([[None] * count for count in left.values()], shape.lanes, shape.groups)
                self._rows = len(groups) * lanes if len(groups) * lanes <= 2 / 3 * self._rows else self._rows
            rows, images = self._rows, len(longest)
            positions = sum(longest.values()) * min(shape.lanes, rows / images)
        else:
            rows, images = len(ages), len({request.image_id for request in running.values()})
            positions = sum(ages.values())
        work.cost += (CPU if machine.by_image else GPU).of(rows, images, positions)
        return machine.step + machine.row * rows + machine.image * images + machine.position * positions

    def _pass(self, seconds: float) -> None:
        self.clock.now += seconds * self.machine.load(self.clock.now)

    def _caption(self, request: Any, tokens: int) -> Any:
        return SimpleNamespace(
            image_id=request.image_id,
            text=caption_text(request.image_id, request.method, shared_luck=True),
            token_ids=tuple(range(tokens)),
            finish_reason="eos",
            tag=request.tag,
        )
