"""What decode steps cost beside each other, and how that goes over the captions of a run: a small simulation.

Captions end when they like, but those that start together end at about the same time, and what a step costs depends on
how many it decodes, of how many images, and how far they are. Where images have lanes of their own, some stand idle at
the end of an image; at the end of a run all grids get thin. So the first captions say little of what the last cost.
"""

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

_SPREAD = 0.12
"""Standard deviation of the tokens of captions, as a share of their mean."""

_TURN = 0.6180339887498949
"""The golden ratio; its multiples spread evenly over a circle, however many of them are taken."""

_THIN = 2 / 3
"""A grid is moved together where that leaves no more than this share of its rows."""


@dataclass(frozen=True)
class StepCost:
    """What a step costs, as a multiple of what each caption adds to it.

    Attributes
    ----------
    step
        Of a step whatever its width.
    image
        Of reading an image's prompt.
    position
        Of reading one token of a caption.
    prompt
        Of running one token of a prompt, the image's own way to it included; not part of a step.
    """

    step: float
    image: float
    position: float
    prompt: float

    def of(self, rows: float, images: float, positions: float) -> float:
        """A step of so many captions, idle ones that are computed all the same included, prompts and tokens read."""
        return self.step + rows + self.image * images + self.position * positions


CPU = StepCost(100, 1.0, 1 / 95, 1.35)
"""As the demo was measured."""

GPU = StepCost(280, 6.0, 1 / 50, 1.5)
"""As a model of 7B is calculated, in 16 bits on an H100; not measured."""


@dataclass(frozen=True)
class Shape:
    """Who may stand where.

    Attributes
    ----------
    groups, lanes
        Images at once and captions of each; one group is a grid on which any caption takes any row.
    """

    groups: int
    lanes: int

    @property
    def rows(self) -> int:
        """Captions at once."""
        return self.groups * self.lanes


def lanes_by_image(most: int, requests: int, images: int) -> Shape:
    """Images by lanes, for ``requests`` about ``images`` and at most so many rows.

    Where all requests fit at once, an image gets as many lanes as it has requests, and otherwise half as many: the
    second half starts as the first finishes, so that lanes seldom stand idle while an image's longest caption ends.
    """
    lanes = min(most, -(-requests // (images if requests <= most else 2 * images)))
    return Shape(max(1, min(most // lanes, -(-requests // lanes))), lanes)


class Course:
    """What the tokens of a run cost, from the first to the last, if all goes as usual.

    Parameters
    ----------
    rows, by_image
        Captions that there is room for, and whether images have lanes of their own, as a CPU's grid has them.
    images, each
        Images, and captions of each, 1 or more.
    tokens
        Tokens of a caption.
    """

    def __init__(self, rows: int, by_image: bool, images: int, each: int, tokens: float) -> None:
        shape = lanes_by_image(rows, images * each, images) if by_image else Shape(1, min(rows, images * each))
        self._tokens, self._cost = _simulated(shape, CPU if by_image else GPU, images, each, tokens)

    def rest(self, share: float) -> float:
        """What a token costs on average from there on, where this share of the tokens is written."""
        at = min(share, 1 - 1e-6) * self._tokens[-1]
        return float((self._cost[-1] - np.interp(at, self._tokens, self._cost)) / (self._tokens[-1] - at))


def _simulated(shape: Shape, price: StepCost, images: int, each: int, tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and costs up to each end of a caption."""
    by_image = shape.groups > 1
    waiting = deque(deque([image] * each) for image in range(images))
    if not by_image:
        waiting = deque([deque(image for queue in waiting for image in queue)])
    queues: list[deque[int]] = [deque() for _ in range(shape.groups)]
    begins: list[list[float]] = [[] for _ in range(shape.groups)]
    oldest = np.full(shape.groups, np.inf)
    """When the oldest caption of each group began."""
    running: list[tuple[float, float, int, int]] = []
    """When each caption ends and began, its group and image; a heap."""
    rows = shape.rows
    to_come, of_image = images * each, np.zeros(images, dtype=int)
    now = written = cost = begun = 0.0
    course = [(written, cost)]

    def fill(group: int) -> None:
        """Let captions begin in the free lanes of a group."""
        nonlocal to_come, begun
        if not queues[group] and not begins[group] and to_come:
            queues[group] = waiting.popleft() if waiting else next(queue for queue in queues if queue)
        while queues[group] and len(begins[group]) < shape.lanes:
            image = queues[group].popleft()
            luck = 3**0.5 * (2 * (to_come * _TURN % 1) - 1)
            heapq.heappush(running, (now + tokens * (1 + _SPREAD * luck), now, group, image))
            begins[group].append(now)
            to_come, of_image[image], begun = to_come - 1, of_image[image] + 1, begun + now
        oldest[group] = min(begins[group], default=np.inf)

    for group in range(shape.groups):
        fill(group)
    while running:
        count = len(running)
        end, began, group, image = heapq.heappop(running)
        middle = (now + end) / 2
        if by_image:
            # All lanes of an image are computed, and read as far as its oldest caption, until the grid gets thin.
            if not to_come and count <= _THIN * rows:
                rows = _packed(of_image[of_image > 0], shape, rows)
            busy = np.isfinite(oldest)
            prompts = int(busy.sum())
            positions = float((middle - oldest[busy]).sum()) * min(shape.lanes, rows / prompts)
        else:
            rows, prompts, positions = count, int((of_image > 0).sum()), count * middle - begun
        cost += (end - now) * price.of(rows, prompts, positions)
        written += (end - now) * count
        course.append((written, cost))
        now = end
        begins[group].remove(began)
        of_image[image], begun = of_image[image] - 1, begun - began
        fill(group)
    columns = np.array(course).T
    return columns[0], columns[1]


def _packed(captions: np.ndarray, shape: Shape, rows: int) -> int:
    """Rows of a grid once what is left of each image is moved together, as :func:`.scheduler.packing` does."""
    lanes, found = shape.lanes, rows
    while lanes:
        groups = int(np.ceil(captions / lanes).sum())
        if groups <= shape.groups and groups * lanes <= _THIN * rows:
            found = min(found, groups * lanes)
        lanes //= 2
    return found
