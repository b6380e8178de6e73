"""The front of two objectives, CHAIR_S down and F1 up."""

from collections.abc import Iterable, Sequence
from typing import Protocol

Point = tuple[float, float]
"""(CHAIR_S, F1) in percent."""

REFERENCE_CHAIR_S_MARGIN = 5.0
REFERENCE_F1_MARGIN = 10.0


def dominates(one: Point, other: Point) -> bool:
    """Whether ``one`` is no worse than ``other`` in both objectives and better in at least one."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that none dominates, by rising CHAIR_S; equal points are all in it, in their order."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1], index))
    found: list[int] = []
    for index in order:
        if not found or points[index][1] > points[found[-1]][1] or points[index] == points[found[-1]]:
            found.append(index)
    return found


class Judged(Protocol):
    """A trial with its number and, once it is judged, its place."""

    @property
    def number(self) -> int | None: ...
    @property
    def point(self) -> Point | None: ...


def front_numbers(trials: Iterable[Judged]) -> list[int]:
    """Numbers of the trials that none of these dominates, by rising CHAIR_S."""
    places = [(trial.number, trial.point) for trial in trials if trial.number is not None and trial.point is not None]
    return [places[index][0] for index in front([point for _, point in places])]


def reference_point(baseline: Point) -> Point:
    """The point that hypervolume is measured from: the baseline's CHAIR_S + 5 points and F1 - 10 points."""
    return baseline[0] + REFERENCE_CHAIR_S_MARGIN, baseline[1] - REFERENCE_F1_MARGIN
