"""Requests that no row has taken yet. Plain Python, no tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

R = TypeVar("R")


class Waiting(Generic[R]):
    """Queues of requests, one for those that share a prompt; iterates over their keys, which came first first."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[R]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._queues)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._queues

    def add(self, key: Hashable, request: R) -> None:
        """The last of its key."""
        self._queues.setdefault(key, deque()).append(request)

    def add_first(self, key: Hashable, request: R) -> None:
        """The first of its key, and its key before all others."""
        self._queues = {key: self._queues.pop(key, deque()), **self._queues}
        self._queues[key].appendleft(request)

    def first(self, key: Hashable) -> R:
        """The first of a key for which somebody waits, which stays."""
        return self._queues[key][0]

    def take(self, key: Hashable) -> R:
        """The first of a key for which somebody waits."""
        request = self._queues[key].popleft()
        if not self._queues[key]:
            del self._queues[key]
        return request

    def withdraw(self, unwanted: Callable[[R], bool]) -> None:
        """Forget the requests for which ``unwanted`` is true."""
        kept = {key: deque(one for one in queue if not unwanted(one)) for key, queue in self._queues.items()}
        self._queues = {key: queue for key, queue in kept.items() if queue}

    def requests(self) -> list[tuple[Hashable, R]]:
        """All of them, with their keys."""
        return [(key, request) for key, queue in self._queues.items() for request in queue]
