"""Who is decoded where: requests onto a grid of image groups by lanes. Plain Python, no tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from kvtune.captioning.waiting import Waiting

R = TypeVar("R")


@dataclasses.dataclass
class Group(Generic[R]):
    """One row of the grid: an image (its prefix key) and what its lanes decode."""

    lanes: list[R | None]
    key: Hashable = None

    @property
    def is_idle(self) -> bool:
        return all(request is None for request in self.lanes)


@dataclasses.dataclass(frozen=True)
class Placement(Generic[R]):
    """A request in ``row`` of the grid, which is about the image that the grid counts as ``image``."""

    image: int
    row: int
    request: R


class Scheduler(Generic[R]):
    """Gives free lanes to waiting requests, those of one prefix together.

    Row ``group * lanes + lane`` of the grid is a group's lane, and its image is the group's.

    A finished lane takes the next waiting request of its group's image; a group whose image has none left, and whose
    lanes are all done, takes the image that has waited longest. When every image that waits is on the grid already, a
    free group takes a second copy of one.

    Parameters
    ----------
    groups, lanes
        Size of the grid.
    """

    def __init__(self, groups: int, lanes: int) -> None:
        self.groups: list[Group[R]] = [Group([None] * lanes) for _ in range(groups)]
        self.lanes = lanes
        self._waiting: Waiting[R] = Waiting()
        self._has_room = True

    @property
    def waiting(self) -> int:
        """Requests that no lane has taken yet."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting) or not all(group.is_idle for group in self.groups)

    @property
    def has_room(self) -> bool:
        """Whether a lane may be free for somebody who waits; False spares the look."""
        return self._has_room and bool(self._waiting)

    @property
    def running(self) -> list[Placement[R]]:
        """What the lanes decode."""
        return [
            Placement(index, self._row(index, lane), request)
            for index, group in enumerate(self.groups)
            for lane, request in enumerate(group.lanes)
            if request is not None
        ]

    def add(self, key: Hashable, request: R) -> None:
        """Let ``request`` wait for a lane; requests with equal ``key`` share a prefix."""
        self._waiting.add(key, request)
        self._has_room = True

    def place(self) -> tuple[dict[int, Hashable], list[Placement[R]]]:
        """Fill free lanes.

        Returns
        -------
        tuple
            The groups that got another image, with its key; and the requests that start.
        """
        loads: dict[int, Hashable] = {}
        starts: list[Placement[R]] = []
        for index, group in enumerate(self.groups):
            starts += self._fill(index, group)
        on_grid = {group.key for group in self.groups if not group.is_idle}
        for index, group in enumerate(self.groups):
            if not self._waiting:
                break
            if not group.is_idle:
                continue
            key = next((key for key in self._waiting if key not in on_grid), next(iter(self._waiting)))
            group.key = loads[index] = key
            on_grid.add(key)
            starts += self._fill(index, group)
        self._has_room = bool(starts)
        return loads, starts

    def finish(self, row: int) -> None:
        """The request in ``row`` is done; its lane is free."""
        group, lane = divmod(row, self.lanes)
        self.groups[group].lanes[lane] = None
        self._has_room = True

    def withdraw(self, unwanted: Callable[[R], bool]) -> None:
        """Forget the requests for which ``unwanted`` is true, waiting or running."""
        self._waiting.withdraw(unwanted)
        self._has_room = True
        for group in self.groups:
            group.lanes = [None if request is None or unwanted(request) else request for request in group.lanes]

    def requests(self) -> list[tuple[Hashable, R]]:
        """Everything that runs or waits, with its key, what runs first."""
        running = [(self.groups[placement.image].key, placement.request) for placement in self.running]
        return running + self._waiting.requests()

    def packed(self, groups: Sequence[Sequence[Placement[R]]], lanes: int) -> Scheduler[R]:
        """A scheduler of ``lanes`` with a group for each of ``groups``, what runs of one image, in their order."""
        other: Scheduler[R] = Scheduler(len(groups), lanes)
        for new, placements in zip(other.groups, groups, strict=True):
            new.key = self.groups[placements[0].image].key
            new.lanes[: len(placements)] = [placement.request for placement in placements]
        return other

    def of_one_image(self) -> list[list[Placement[R]]]:
        """What the lanes decode, those that share a prefix together."""
        found: dict[Hashable, list[Placement[R]]] = {}
        for placement in self.running:
            found.setdefault(self.groups[placement.image].key, []).append(placement)
        return list(found.values())

    def _row(self, group: int, lane: int) -> int:
        return group * self.lanes + lane

    def _fill(self, index: int, group: Group[R]) -> list[Placement[R]]:
        starts = []
        for lane, request in enumerate(group.lanes):
            if group.key not in self._waiting:
                break
            if request is None:
                group.lanes[lane] = taken = self._waiting.take(group.key)
                starts.append(Placement(index, self._row(index, lane), taken))
        return starts


_GROUP_COST = 0.4
"""What reading one more copy of a prompt costs, in rows."""


def packing(images: Sequence[Sequence[R]], lanes: int, most_groups: int) -> tuple[list[Sequence[R]], int]:
    """Groups for what is left of a run, and their lanes: as few rows as can be, and few copies of prompts.

    Parameters
    ----------
    images
        What is left of each image, in the order in which it is to stand.
    lanes
        Lanes of a group at most.
    most_groups
        Groups at most; there are enough for one an image.
    """
    packings = []
    while lanes:
        groups = [one[first : first + lanes] for one in images for first in range(0, len(one), lanes)]
        packings.append((groups, lanes))
        lanes //= 2
    fitting = [packing for packing in packings if len(packing[0]) <= most_groups] or packings[:1]
    return min(fitting, key=lambda packing: len(packing[0]) * (packing[1] + _GROUP_COST))
