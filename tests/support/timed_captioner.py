"""An engine whose captions take time by a clock of its own, as decoding side by side does; and that clock."""

from collections import Counter
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
        work = SimpleNamespace(prompts=0, tokens=0, in_flight=0, rows=None, by="")
        step = gone = 0
        ends: dict[int, list[tuple[int, Any]]] = {}  # the step that is a caption's last: when it began, and the request
        running: Counter[int] = Counter()  # captions of each image
        while True:
            if len(self.withdrawn) > gone:
                gone = len(self.withdrawn)
                for end, rows in ends.items():
                    for begun, request in rows:
                        if request.tag in self.withdrawn:
                            work.in_flight -= step - begun
                            running[request.image_id] -= 1
                    ends[end] = [row for row in rows if row[1].tag not in self.withdrawn]
            new = list(islice(source, self.machine.rows - running.total()))
            images = len({request.image_id for request in new} - {image for image, rows in running.items() if rows})
            for begin in range(0, images, PROMPTS_TOGETHER):
                together = min(PROMPTS_TOGETHER, images - begin)
                self._pass(together * self.machine.prompt)
                work.prompts += together
                on_work(work)
            for request in new:
                self.asked.append((request.tag, request.image_id))
                ends.setdefault(step + self.machine.tokens(request), []).append((step, request))
                running[request.image_id] += 1
            rows = running.total()
            if not rows:
                return
            images = sum(count > 0 for count in running.values())
            self._pass(self.machine.step + self.machine.row * rows + self.machine.image * images)
            step += 1
            work.tokens += rows
            work.in_flight += rows
            for begun, request in ends.pop(step, []):
                running[request.image_id] -= 1
                work.in_flight -= step - begun
                if request.tag not in self.withdrawn:
                    yield self._caption(request, step - begun)
            on_work(work)

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
