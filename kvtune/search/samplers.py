"""The samplers that a search may use, each with the settings that kvtune gives it."""

import hashlib
import random
import warnings
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from kvtune.errors import RequestError
from kvtune.study.search_defaults import SAMPLERS, SamplerName
from kvtune.text import not_there

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from kvtune.spaces import SearchSpace


STARTUP_TRIALS = 10
"""Random trials before TPE and GP use what they have seen; Optuna's own default for both."""

POPULATION = 8
"""NSGA-II's population. Optuna's default of 50 would make a search of 50 trials purely random."""


def check_sampler(name: SamplerName, space: "SearchSpace") -> None:
    """Check that a sampler can search a space.

    Raises
    ------
    RequestError
        If it cannot: a grid without steps; alternatives for a sampler that would leave all that is not common to them
        to chance.
    """
    if name == "grid":
        space.grids()
    if name in ("nsga2", "gp") and space.alternatives.is_choice:
        raise RequestError(
            f"--sampler {name} searches parameters that all settings have, which those of alternatives are not; "
            "use tpe, random or grid"
        )


def round_seed(seed: int, index: int) -> int:
    """The seed of a round's sampler: other rounds and other seeds get unrelated ones."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4])


def make_sampler(name: SamplerName, seed: int, conditional: bool = False) -> "BaseSampler":
    """A fresh Optuna sampler.

    Parameters
    ----------
    conditional
        Whether some settings have parameters that others have not.

    Raises
    ------
    RequestError
        If ``name`` is not one of :data:`SAMPLERS` that Optuna runs (all but ``grid``).
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    if name == "tpe":
        # constant_liar: the trials of a round see each other as running and keep apart. multivariate: the best settings
        # are a region, not the product of what each parameter is best at. group: parameters that go together are a
        # region of their own, seen by the trials that have them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return samplers.TPESampler(
                n_startup_trials=STARTUP_TRIALS, constant_liar=True, multivariate=True, group=conditional, seed=seed
            )
    if name == "nsga2":
        return samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    if name == "gp":
        return samplers.GPSampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
    if name == "random":
        return samplers.RandomSampler(seed=seed)
    raise RequestError(not_there("sampler", name, SAMPLERS))


def grid_points(space: "SearchSpace", seed: int) -> Iterator[dict[str, Any]]:
    """Every point of a space's grid once, in an order shuffled by the seed.

    Raises
    ------
    RequestError
        If a continuous parameter has no step.
    """
    grids = space.grids()
    sizes = [prod(len(values) for values in axes.values()) for axes in grids]
    for index in _shuffled(sum(sizes), seed):
        point = {}
        which = 0
        while index >= sizes[which]:
            index, which = index - sizes[which], which + 1
        axes = grids[which]
        for name, values in axes.items():
            index, position = divmod(index, len(values))
            point[name] = values[position]
        yield point


def _shuffled(size: int, seed: int) -> Iterator[int]:
    """The numbers below ``size`` in random order (Fisher and Yates), holding only those that were moved."""
    draw = random.Random(seed)
    moved: dict[int, int] = {}
    for position in range(size):
        other = draw.randrange(position, size)
        yield moved.get(other, other)
        moved[other] = moved.pop(position, position)
