"""The settings of the demo that are recorded: a full grid over its search space, and which of them are one method."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AXES: dict[str, tuple[float, ...]] = {
    "lambda_ref": (0.1, 0.3, 0.5, 0.7, 0.9),
    "queue_length": (4, 15, 26, 37),
    "clip_width": (0.0, 0.2, 0.4),
    "start_layer": (1, 4, 7),
    "end_layer": (9, 12, 15),
}
"""Values of the grid, 540 settings within the demo's search space: evenly spaced, so that the grid is a search space
itself, and among the points the published-style preset (0.7, 15, 0.2, layers 1 to 15)."""

Setting = dict[str, Any]
"""The searched parameters of KVSmooth by name."""


def grid_settings(axes: Mapping[str, Sequence[float]] = AXES) -> list[Setting]:
    """Every point of the grid; the last parameter varies fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def methods_of(settings: Sequence[Setting]) -> tuple[list[Setting | None], list[int]]:
    """The different methods that settings amount to, so that none is recorded twice.

    Without a width the factor is ``lambda_ref`` whatever the queue, and a factor of 0 smooths nothing.

    Returns
    -------
    (methods, which)
        The methods, the baseline (None) first, each by the first setting that is it; and for each setting its index in
        them.
    """
    methods: list[Setting | None] = [None]
    known: dict[tuple[Any, ...] | None, int] = {None: 0}
    which = []
    for setting in settings:
        ignored = {"queue_length"} if setting["clip_width"] == 0 else set()
        key = None
        if setting["clip_width"] or setting["lambda_ref"]:
            key = tuple((name, value) for name, value in setting.items() if name not in ignored)
        if key not in known:
            known[key] = len(methods)
            methods.append(setting)
        which.append(known[key])
    return methods, which


POOL_AXES: dict[str, tuple[float, ...]] = {
    "lambda_ref": (0.1, 0.3, 0.5, 0.7, 0.9),
    "queue_length": (15,),
    "clip_width": (0.2,),
    "start_layer": (1, 5),
    "end_layer": (11, 15),
}
"""20 settings from the region of the demo's front, among them the published-style preset."""


@dataclass(frozen=True)
class Recording:
    """Settings to be recorded, and the ids of the scenes."""

    settings: list[Setting]
    scenes: range


SETS = {
    "grid": Recording(grid_settings(), range(910_001, 910_301)),
    "pool": Recording(grid_settings(POOL_AXES), range(920_001, 922_001)),
}
"""What :mod:`kvtune.bench.search.record` records."""
