"""Continuous batching: any waiting request goes into any free row, as long as there are pages for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

from kvtune.captioning.page_demand import PageDemand
from kvtune.captioning.pages import Pages
from kvtune.captioning.scheduler import Placement
from kvtune.captioning.waiting import Waiting

R = TypeVar("R")

AHEAD = 0.03
"""Share of the pages that prompts may hold which are run ahead of need, for the sake of being run together."""


class ContinuousScheduler(Generic[R]):
    """Gives free rows to waiting requests, those of the image that has waited longest first.

    A request starts if there are pages for what all captions, it included, are expected to want at once from now on
    (:class:`PageDemand`). Should they want more, the youngest give way (:meth:`put_back`). Images of which nobody is on
    the grid and nobody waits stay there until their pages are wanted.

    Where an image must come onto the grid, those that are due next come with it, so that their prompts are run
    together.

    Parameters
    ----------
    rows
        Captions at once.
    pages
        The grid's; prompts and captions hold them as ``("image", n)`` and ``("row", n)``.
    demand
        What captions are expected to want.
    prompt_pages
        What a prompt is expected to take; to be corrected when a longer one is seen.
    together
        Prompts that are run together at most.
    most_images
        Images on the grid at most; as many as rows if not given. Where each row is about an image of its own, more of
        them let prompts be run ahead.
    """

    def __init__(
        self,
        rows: int,
        pages: Pages,
        demand: PageDemand,
        prompt_pages: int,
        together: int = 1,
        most_images: int | None = None,
    ) -> None:
        self.rows, self.pages, self.demand, self.prompt_pages = rows, pages, demand, prompt_pages
        self.together, self.most_images = together, most_images or rows
        self._waiting: Waiting[R] = Waiting()
        self._running: dict[int, Placement[R]] = {}
        self._free = list(range(rows))
        """Free rows, a heap."""
        self._images: dict[Hashable, int] = {}
        """Key -> number of each image on the grid, the one that was used longest ago first."""
        self._rows_of: dict[int, int] = {}
        """Number of an image -> rows that are about it."""
        self._has_room = True

    @property
    def waiting(self) -> int:
        """Requests that no row has taken yet."""
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def images(self) -> int:
        """Images that rows are about."""
        return sum(rows > 0 for rows in self._rows_of.values())

    @property
    def has_room(self) -> bool:
        """Whether a row may be free for somebody who waits; False spares the look."""
        return self._has_room and bool(self._waiting) and bool(self._free)

    @property
    def running(self) -> list[Placement[R]]:
        """What the rows decode."""
        return list(self._running.values())

    def add(self, key: Hashable, request: R) -> None:
        """Let ``request`` wait for a row; requests with equal ``key`` share a prompt."""
        self._waiting.add(key, request)
        self._has_room = True

    def place(self) -> tuple[dict[int, Hashable], list[Placement[R]]]:
        """Fill free rows.

        Returns
        -------
        tuple
            The images that come onto the grid, by number, with their keys, those for which nobody starts yet last; and
            the requests that start.
        """
        loads: dict[int, Hashable] = {}
        ahead: dict[int, Hashable] = {}
        starts: list[Placement[R]] = []
        free = self.pages.free
        captions = self.demand.of([len(self.pages.of(("row", row))) for row in self._running])
        # Pages that prompts do not hold.
        left = free + sum(len(self.pages.of(("row", row))) for row in self._running)
        new = self.demand.of([1])

        def make_room(kept: Hashable) -> bool:
            nonlocal free, left
            # Where captions run, pages come free as they end.
            evicted = self.evict(kept, self.ahead if self._running else 0)
            free, left = free + evicted, left + evicted
            return evicted > 0

        for key in list(self._waiting):
            while key in self._waiting and self._free:
                with_it = captions + new
                due = self._due(key)
                prompt = len(due) * self.prompt_pages
                while (lacking := max(prompt + with_it.max() - left, prompt + 1 - free)) > 0:
                    if not make_room(key):
                        break
                # A grid on which nothing runs takes one request whatever is expected of it.
                if lacking > 0 and self._running:
                    break
                if lacking > 0:
                    due, prompt = due[:1], len(due[:1]) * self.prompt_pages
                if key in self._images:
                    image = self._images.pop(key)
                    if image in ahead:
                        loads[image] = ahead.pop(image)
                else:
                    if len(self._images) == self.most_images and not make_room(key):
                        break
                    image = self._new_image()
                    loads[image] = key
                    for other in due[1:]:
                        if len(self._images) + 1 == self.most_images:  # one is there that nobody wants
                            make_room(key)
                        self._images[other] = number = self._new_image()
                        ahead[number] = other
                self._images[key] = image  # as the last one used
                placement = Placement(image, heapq.heappop(self._free), self._waiting.take(key))
                self._running[placement.row] = placement
                self._rows_of[image] += 1
                starts.append(placement)
                captions = with_it
                free, left = free - prompt - 1, left - prompt
            if key in self._waiting:
                break
        self._has_room = bool(starts)
        return loads | ahead, starts

    @property
    def ahead(self) -> int:
        """Images that come onto the grid before anybody starts, at most."""
        return self.together - 1

    def next_of(self, key: Hashable) -> R:
        """The request that starts next, of those that wait with ``key``."""
        return self._waiting.first(key)

    def next_due(self) -> dict[Hashable, R]:
        """The images that are expected to come onto the grid next, and a request about each."""
        key = next((key for key in self._waiting if key not in self._images), None)
        return {} if key is None else {one: self._waiting.first(one) for one in self._due(key)}

    def _due(self, key: Hashable) -> list[Hashable]:
        """The image that must come onto the grid for ``key``, and those that come with it; none if it is there."""
        if key in self._images:
            return []
        most = 1 + int(AHEAD * self.pages.count / self.prompt_pages)
        wanted = sum(self._rows_of[image] > 0 or one in self._waiting for one, image in self._images.items())
        most = min(self.together, most, max(1, self.most_images - wanted))
        others = (other for other in self._waiting if other != key and other not in self._images)
        return [key, *islice(others, most - 1)]

    def _new_image(self) -> int:
        image = next(number for number in range(self.most_images) if number not in self._rows_of)
        self._rows_of[image] = 0
        return image

    def finish(self, row: int) -> None:
        """The request in ``row`` is done; the row is free, and its pages are given back by the grid."""
        placement = self._running.pop(row)
        self._rows_of[placement.image] -= 1
        heapq.heappush(self._free, row)
        self._has_room = True

    def put_back(self, row: int) -> None:
        """The request in ``row`` waits again, before all others of its image."""
        placement = self._running[row]
        self.finish(row)
        self._waiting.add_first(self._key_of(placement.image), placement.request)

    def forget(self, image: int) -> None:
        """An image is not on the grid after all."""
        del self._images[self._key_of(image)], self._rows_of[image]

    def _key_of(self, image: int) -> Hashable:
        return next(key for key, number in self._images.items() if number == image)

    def withdraw(self, unwanted: Callable[[R], bool]) -> None:
        """Forget the requests for which ``unwanted`` is true, waiting or running."""
        self._waiting.withdraw(unwanted)
        for placement in self.running:
            if unwanted(placement.request):
                self.finish(placement.row)
        self._has_room = True

    def move(self, order: list[int]) -> None:
        """Row ``i`` becomes what row ``order[i]`` was."""
        self._running = {
            row: Placement(self._running[before].image, row, self._running[before].request)
            for row, before in enumerate(order)
            if before in self._running
        }
        self._free = [row for row in range(self.rows) if row not in self._running]

    def requests(self) -> list[tuple[Hashable, R]]:
        """Everything that runs or waits, with its key, in order of arrival as far as that is known."""
        key_of = {image: key for key, image in self._images.items()}
        running = [(key_of[placement.image], placement.request) for placement in self.running]
        return running + self._waiting.requests()

    def evict(self, kept: Hashable = None, spared: int = 0) -> int:
        """Take an image of which nothing runs off the grid, one for which nobody waits first; the pages of its prompt.

        ``kept`` stays, and so do images whose prompts have not been run yet, and of those for which somebody waits, and
        whose prompts would be run again, so many as are to be ``spared``.
        """
        idle = [
            key
            for key, image in self._images.items()
            if self._rows_of[image] == 0 and key != kept and self.pages.of(("image", image))
        ]
        done = [key for key in idle if key not in self._waiting]
        if not done and len(idle) <= spared:
            return 0
        key = done[0] if done else idle[-1]
        image = self._images.pop(key)
        del self._rows_of[image]
        held = len(self.pages.of(("image", image)))
        self.pages.give_back(("image", image))
        return held
