"""A recorded grid as a world to search in: its space, and what each of its points comes to."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.bench.search.settings import grid_settings
from kvtune.bench.search.table import Table
from kvtune.chair import rates
from kvtune.errors import RequestError
from kvtune.spaces import Range, SearchSpace
from kvtune.statistics.front import Point, front
from kvtune.statistics.hypervolume import hypervolume


class World:
    """A full grid of settings whose outcomes on every image are known.

    Parameters
    ----------
    table
        The recorded grid.

    Attributes
    ----------
    space
        The search space that has the grid's points and no others.
    settings
        The grid's points.
    points
        (CHAIR_S, F1) of each on all images: the truth of a replay.
    front
        Indices of the points that none dominates; settings that come to the same are all in it.
    nadir
        The worst CHAIR_S and the worst F1 on the grid's front; hypervolumes are measured from there.
    images
        Number of images.

    Raises
    ------
    RequestError
        If the settings are not a full grid of even steps, or its front is one point.
    """

    def __init__(self, table: Table) -> None:
        self.settings, self.images = table.recorded.settings, len(table.truth)
        self._axes = {name: sorted({setting[name] for setting in self.settings}) for name in self.settings[0]}
        ranges = {name: _range(values) for name, values in self._axes.items()}
        if grid_settings(self._axes) != self.settings or any(
            ranges[name].grid() != values for name, values in self._axes.items()
        ):
            raise RequestError("the recorded settings are not a full grid of even steps")
        self.space = SearchSpace(method="kvsmooth", parameters=ranges, fixed=table.recorded.fixed)
        self._counts, self._which = table.counts(), table.which
        found = rates(self._counts.sum(axis=1))
        by_method: list[Point] = list(zip(found["chair_s"].tolist(), found["f1"].tolist(), strict=True))
        self.points = [by_method[method] for method in self._which]
        self.front = front(self.points)
        best = [self.points[index] for index in self.front]
        self.nadir: Point = (max(chair_s for chair_s, _ in best), min(f1 for _, f1 in best))
        if not self.volume > 0:
            raise RequestError("the front of the recorded settings is a single point; there is nothing to reach")

    @cached_property
    def volume(self) -> float:
        """Hypervolume of the whole grid."""
        return hypervolume(self.points, self.nadir)

    def share(self, points: list[Point]) -> float:
        """Hypervolume of some points, as a share of the whole grid's."""
        return hypervolume(points, self.nadir) / self.volume

    def index(self, params: Mapping[str, Any]) -> int:
        """The grid's point that has these parameters, which may be off by what adding steps up loses."""
        index = 0
        for name, values in self._axes.items():
            place = min(range(len(values)), key=lambda place: abs(values[place] - params[name]))
            index = index * len(values) + place
        return index

    def counts(self, setting: int, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts of a setting on these images (by place), in their order; see :data:`kvtune.chair.COLUMNS`."""
        return self._counts[self._which[setting]][images]

    def metrics(self, setting: int, images: NDArray[np.int64]) -> dict[str, Any]:
        """What the ledger of a study would hold of a setting judged on these images."""
        totals = self.counts(setting, images).sum(axis=0)
        return {name: float(value) for name, value in rates(totals).items()} | {"images": len(images)}


def _range(values: list[float]) -> Range:
    steps = (values[-1] - values[0]) / (len(values) - 1) if len(values) > 1 else None
    whole = all(isinstance(value, int) for value in values)
    step = steps if steps is None else round(steps) if whole else round(steps, 10)
    return Range(low=values[0], high=values[-1], step=step or None)
