"""Which request goes to which worker. Plain Python: no processes, no clock."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvtune.captioning.request import CaptionRequest

SLACK = 0.25
"""Requests that a worker has beyond its rows, as a share of these, so that a free row never waits for the driver."""

Numbered = tuple[int, CaptionRequest]
"""A request and the number that its caption comes back with; numbers rise in the order of the requests."""


@dataclass
class Order:
    """What a worker is to do: requests to begin, and numbers of requests to drop."""

    send: list[Numbered] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)


@dataclass
class _Share:
    """What one worker has."""

    rows: int
    speed: float
    held: dict[int, None] = field(default_factory=dict)
    """Numbers, in the order in which they were sent."""

    @property
    def window(self) -> int:
        """Requests that the worker is to have."""
        return self.rows + max(1, int(SLACK * self.rows))

    @property
    def room(self) -> int:
        """Requests that it can be sent; 0 until there is room for enough of them to be worth a message."""
        room = self.window - len(self.held)
        return room if 2 * room >= self.window - self.rows else 0

    @property
    def surplus(self) -> int:
        """Requests that no row can have taken yet."""
        return len(self.held) - self.rows


@dataclass
class _Group:
    """Neighbouring requests of one image that wait."""

    key: Hashable
    numbers: list[int]

    def __lt__(self, other: _Group) -> bool:
        return self.numbers[0] < other.numbers[0]


class Dispatcher:
    """Deals the requests of one run out to workers, and remembers who has what until it is answered or withdrawn.

    Images go out in the order of the requests, each to the worker that is furthest from having enough, and whatever is
    open about one image is with one worker, so that its prompt is run once. A worker gets more as it answers, so a fast
    one gets more than a slow one; where less is left than all could take, it is divided by their speeds. A worker that
    has nothing while nobody waits takes over what another has not begun. What a lost worker had goes out again, first.

    Every request is answered once, however often it was sent, or withdrawn.

    Parameters
    ----------
    requests
        Pulled from as workers want them.
    numbers
        Where the requests' numbers come from; they must rise, and never come twice to a worker.
    """

    def __init__(self, requests: Iterable[CaptionRequest], numbers: Iterator[int]) -> None:
        self._source, self._numbers = iter(requests), numbers
        self._exhausted = False
        self._open: dict[int, CaptionRequest] = {}
        self._of_tag: dict[Hashable, dict[int, None]] = {}
        self._holder: dict[int, Hashable] = {}
        """Number of an open request that was sent -> worker."""
        self._shares: dict[Hashable, _Share] = {}
        self._waiting: list[_Group] = []
        """A heap, in the order of the requests."""
        self._newest: _Group | None = None
        """The group that the next request may belong to."""
        self._place: dict[Hashable, Hashable] = {}
        """Image -> the worker that open requests about it are with."""
        self._held_of: Counter[Hashable] = Counter()
        """Image -> how many these are."""
        self._drops: dict[Hashable, list[int]] = {}
        self._withdrawn: set[Hashable] = set()

    @property
    def waiting(self) -> int:
        """Requests that were pulled and are with nobody."""
        return len(self._open) - len(self._holder)

    @property
    def held(self) -> int:
        """Open requests that are with somebody."""
        return len(self._holder)

    @property
    def is_drained(self) -> bool:
        """Whether all requests there are, are with somebody or settled."""
        return self._exhausted and not self.waiting

    @property
    def is_done(self) -> bool:
        """Whether all requests there are, are settled."""
        return self._exhausted and not self._open

    def held_by(self, worker: Hashable) -> list[int]:
        """Numbers of the open requests that a worker has, in the order in which they were sent."""
        share = self._shares.get(worker)
        return list(share.held) if share is not None else []

    def join(self, worker: Hashable, rows: int, speed: float = 1.0) -> None:
        """A worker is ready.

        Parameters
        ----------
        rows
            Captions that it writes at once.
        speed
            How quick it is, beside the others.
        """
        self._shares[worker] = _Share(rows, speed)

    def resize(self, worker: Hashable, rows: int) -> None:
        """A worker writes so many captions at once, as it turns out."""
        if worker in self._shares:
            self._shares[worker].rows = rows

    def lose(self, worker: Hashable) -> None:
        """A worker is gone; what it had waits again, before all that comes after it."""
        numbers = sorted(self.held_by(worker))
        for key, group in self._by_image(numbers).items():
            heapq.heappush(self._waiting, _Group(key, group))
        for number in numbers:
            self._take_back(number)
        self._shares.pop(worker, None)
        self._drops.pop(worker, None)

    def withdraw(self, tag: Hashable) -> None:
        """Forget the requests of ``tag``, those too that are still to come."""
        self._withdrawn.add(tag)
        for number in list(self._of_tag.get(tag, ())):
            self._drop(number)
            self._settle(number)

    def answer(self, worker: Hashable, number: int) -> CaptionRequest | None:
        """A worker has the caption of a request; the request, or None if it is not the worker's any more."""
        if self._holder.get(number) != worker:
            return None
        request = self._open[number]
        self._settle(number)
        return request

    def deal(self) -> dict[Hashable, Order]:
        """What to tell which worker now."""
        orders: dict[Hashable, Order] = {}
        room = {worker: share.room for worker, share in self._shares.items() if share.room}
        self._pull(sum(room.values()))
        for number, worker in self._divided(room):
            orders.setdefault(worker, Order()).send.append((number, self._open[number]))
        if self.is_drained:
            for worker, share in self._shares.items():
                if not share.held:
                    taken = self._take_over(worker)
                    if taken:
                        orders[worker] = Order([(number, self._open[number]) for number in taken])
        for worker, numbers in self._drops.items():
            orders.setdefault(worker, Order()).drop.extend(numbers)
        self._drops = {}
        return orders

    def _pull(self, wanted: int) -> None:
        """Pull requests until so many wait."""
        while not self._exhausted and self.waiting < wanted:
            request = next(self._source, None)
            if request is None:
                self._exhausted = True
                return
            if request.tag in self._withdrawn:
                continue
            number, key = self._add(request), _image(request)
            if self._newest is not None and self._newest.key == key:
                self._newest.numbers.append(number)
            else:
                self._newest = _Group(key, [number])
                heapq.heappush(self._waiting, self._newest)

    def _divided(self, room: dict[Hashable, int]) -> Iterator[tuple[int, Hashable]]:
        """Who gets what of what waits: numbers with their workers."""
        share: dict[Hashable, float] = dict(room)
        if self.waiting < sum(room.values()):
            weights = {worker: count * self._shares[worker].speed for worker, count in room.items()}
            each = self.waiting / sum(weights.values())
            share = {worker: min(room[worker], each * weight) for worker, weight in weights.items()}
        order = {worker: place for place, worker in enumerate(room)}
        most = [(-left, order[worker], worker) for worker, left in share.items()]
        heapq.heapify(most)
        while self._waiting and most:
            group = heapq.heappop(self._waiting)
            if group is self._newest:
                self._newest = None
            numbers = [number for number in group.numbers if number in self._open and number not in self._holder]
            if not numbers:
                continue
            worker = self._place.get(group.key)
            if worker is None:
                left, place, worker = heapq.heappop(most)
                if -left > len(numbers):
                    heapq.heappush(most, (left + len(numbers), place, worker))
            for number in numbers:
                self._give(worker, number, group.key)
                yield number, worker

    def _take_over(self, worker: Hashable) -> list[int]:
        """Give an idle worker half of what the one with the most has not begun, in whole images."""
        donor = max(self._shares, key=lambda other: self._shares[other].surplus)
        surplus = self._shares[donor].surplus
        if surplus <= 1:
            return []
        of_image = self._by_image(list(self._shares[donor].held)[-surplus:])
        taken: list[int] = []
        for key, numbers in reversed(of_image.items()):
            if len(numbers) == self._held_of[key] and len(taken) + len(numbers) <= max(1, surplus // 2):
                taken[:0] = numbers
        return [self._moved(number, worker) for number in taken]

    def _moved(self, number: int, worker: Hashable) -> int:
        """Give what somebody has to another, as a request with a number of its own: the old one may not come twice."""
        request = self._open[number]
        self._drop(number)
        self._settle(number)
        new = self._add(request)
        self._give(worker, new, _image(request))
        return new

    def _add(self, request: CaptionRequest) -> int:
        number = next(self._numbers)
        self._open[number] = request
        self._of_tag.setdefault(request.tag, {})[number] = None
        return number

    def _give(self, worker: Hashable, number: int, key: Hashable) -> None:
        self._holder[number] = worker
        self._shares[worker].held[number] = None
        self._place[key] = worker
        self._held_of[key] += 1

    def _take_back(self, number: int) -> None:
        """Nobody has this request any more."""
        worker, key = self._holder.pop(number), _image(self._open[number])
        del self._shares[worker].held[number]
        self._held_of[key] -= 1
        if not self._held_of[key]:
            del self._held_of[key], self._place[key]

    def _by_image(self, numbers: Iterable[int]) -> dict[Hashable, list[int]]:
        found: dict[Hashable, list[int]] = {}
        for number in numbers:
            found.setdefault(_image(self._open[number]), []).append(number)
        return found

    def _drop(self, number: int) -> None:
        """Whoever has a request is to be told to leave it."""
        if number in self._holder:
            self._drops.setdefault(self._holder[number], []).append(number)

    def _settle(self, number: int) -> None:
        if number in self._holder:
            self._take_back(number)
        tag = self._open.pop(number).tag
        del self._of_tag[tag][number]
        if not self._of_tag[tag]:
            del self._of_tag[tag]


def _image(request: CaptionRequest) -> Hashable:
    """What requests of one image have in common, as far as that is seen without opening it."""
    return request.image if isinstance(request.image, Path) else id(request.image)
