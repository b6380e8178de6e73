"""Arms compared on a recorded grid: captions until a share of its hypervolume, over seeds."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from kvtune.bench.search.captions_spent import quartiles, ratio
from kvtune.bench.search.replay import Replay, replay
from kvtune.bench.search.samplers_and_rounds import ARMS, DEFAULT, SAMPLERS, YARDSTICKS, Arm
from kvtune.bench.search.table import load_table
from kvtune.bench.search.world import World
from kvtune.errors import RequestError

GRID = Path(__file__).parent / "grid.npz"
"""The table that ships."""

SHARES = (0.95, 0.99)
TARGET = 0.99
"""The share at which the default is compared with the yardsticks."""

TRIALS = 50
"""Trials of a usual search; how much of the hypervolume an arm has by then is given too."""


def compare(
    path: Path | None = None,
    names: Sequence[str] = (),
    seeds: int = 20,
    budget_trials: int = 200,
    jobs: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Replay every arm with every seed.

    Parameters
    ----------
    path
        A recorded grid; None for :data:`GRID`.
    names
        Of arms; none for :data:`~kvtune.bench.search.samplers_and_rounds.ARMS`.
    seeds
        Searches of each arm.
    budget_trials
        Captions that a search may spend, in trials on all images.
    jobs
        Processes; None for one a processor.

    Returns
    -------
    dict
        The document that ``kvtune bench search --json`` prints.

    Raises
    ------
    RequestError
        If an arm is unknown or there twice, or the table is missing, damaged or no full grid.
    """
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"--arm {twice} is there twice; name each arm once")
    arms = [_arm(name) for name in names] or list(ARMS)
    if DEFAULT in arms:
        arms += [arm for arm in YARDSTICKS if arm not in arms]
    path = path or GRID
    table = load_table(path)
    world = World(table)
    budget = budget_trials * world.images
    tasks = [(arm, seed, budget) for arm in sorted(arms, key=_cost) for seed in range(seeds)]
    found: dict[Arm, list[Replay]] = {arm: [] for arm in arms}
    for done, (task, one) in enumerate(zip(tasks, _all(path, tasks, jobs), strict=True), 1):
        found[task[0]].append(one)
        on_progress(done, len(tasks))

    def spent(arm: Arm) -> list[float]:
        return [one.spent(TARGET, budget) for one in found[arm]]

    return {
        "table": {
            "settings": len(world.settings),
            "images": world.images,
            "front": len({world.points[index] for index in world.front}),
            "reference_point": {"chair_s": world.nadir[0], "f1": world.nadir[1]},
            **{name: getattr(table.recorded, name) for name in ("model", "weights", "max_new_tokens", "kvtune")},
        },
        "seeds": seeds,
        "budget": budget,
        "arms": [_summary(world, arm, found[arm], budget) for arm in arms],
        "default": DEFAULT.name,
        "share": TARGET,
        "default_over": {arm.name: ratio(spent(DEFAULT), spent(arm)) for arm in YARDSTICKS if DEFAULT in found},
    }


def _arm(name: str) -> Arm:
    try:
        return Arm.named(name)
    except ValueError as error:
        raise RequestError(
            f"{error}; an arm is a sampler ({', '.join(SAMPLERS)}), how many trials a round has, 1 to 999, and -race "
            "where they are raced: tpe-16-race"
        ) from None


def _cost(arm: Arm) -> tuple[bool, bool]:
    """The slow ones first, so that none is left for the end."""
    return arm.sampler != "gp", arm.sampler == "random"


def _all(path: Path, tasks: Sequence[tuple[Arm, int, int]], jobs: int | None) -> Iterator[Replay]:
    workers = min(jobs or os.cpu_count() or 1, len(tasks))
    if workers == 1:
        world = World(load_table(path))
        yield from (_one(world, *task) for task in tasks)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (path,)) as pool:
        yield from pool.map(_work, tasks)


def _begin(path: Path) -> None:
    global _world
    import torch

    torch.set_num_threads(1)
    _world = World(load_table(path))


def _work(task: tuple[Arm, int, int]) -> Replay:
    return _one(_world, *task)


def _one(world: World, arm: Arm, seed: int, budget: int) -> Replay:
    import warnings

    import optuna

    from kvtune.presets import load_preset

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return replay(world, arm, seed, budget, max(SHARES), load_preset("demo").method().parameters())


def _summary(world: World, arm: Arm, found: Sequence[Replay], budget: int) -> dict[str, Any]:
    lost, best = np.sum([one.lost(world.points) for one in found], axis=0).tolist()
    return {
        "arm": arm.name,
        "sampler": arm.sampler,
        "round_size": arm.round_size,
        "race": arm.race,
        "captions": {f"{share:.0%}": quartiles([one.spent(share, budget) for one in found]) for share in SHARES},
        "reached": {f"{share:.0%}": sum(one.spent(share, budget) <= budget for one in found) for share in SHARES},
        "share_after": {str(TRIALS): quartiles([one.after(TRIALS) for one in found])},
        "trials": float(np.median([len(one.settings) for one in found])),
        "raced": float(np.mean([np.mean(one.raced) for one in found])),
        "front_points_sampled": best,
        "front_points_lost": lost,
    }


_world: World
