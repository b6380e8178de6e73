"""A search replayed on a recorded grid: what each trial costs, and how much of the grid's front it has found."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kvtune.bench.search.samplers_and_rounds import Arm, planner
from kvtune.bench.search.world import World
from kvtune.statistics.front import Point, front
from kvtune.statistics.racing import Race, race_counts
from kvtune.study.trials import Trial


@dataclass(frozen=True)
class Replay:
    """A search, trial by trial.

    Attributes
    ----------
    settings
        Which of the grid's points each trial stands for.
    raced
        Whether each was raced out.
    captions
        Written by the end of each trial, by number; the baseline's, the same for every arm, are not counted.
    share
        Of the grid's hypervolume that the complete trials have by then.
    """

    settings: list[int]
    raced: list[bool]
    captions: list[int]
    share: list[float]

    def spent(self, share: float, budget: int) -> float:
        """Captions until a share of the grid's hypervolume is reached; infinite where that takes more than a budget."""
        for captions, reached in zip(self.captions, self.share, strict=True):
            if reached >= share and captions <= budget:
                return captions
        return math.inf

    def after(self, trials: int) -> float:
        """The share of the grid's hypervolume after so many trials, or at the end of a search that had fewer."""
        return self.share[min(trials, len(self.share)) - 1]

    def lost(self, points: list[Point]) -> tuple[int, int]:
        """Of the sampled points that no other sampled one dominates, those that no complete trial has; and how many.

        Parameters
        ----------
        points
            The truth about every point of the grid.
        """
        sampled = sorted(set(self.settings))
        best = {points[sampled[place]] for place in front([points[setting] for setting in sampled])}
        kept = {points[setting] for setting, raced in zip(self.settings, self.raced, strict=True) if not raced}
        return len(best - kept), len(best)


def replay(
    world: World, arm: Arm, seed: int, budget: int, enough: float = 1.0, published: dict[str, Any] | None = None
) -> Replay:
    """Search until the budget is spent or enough is reached.

    Every trial is paid for, also one that repeats another.

    Parameters
    ----------
    seed
        Of the sampler, and of the order of the images.
    budget
        Captions.
    enough
        The share of the grid's hypervolume at which to end.
    published
        The setting of trial 0.
    """
    images = np.random.default_rng([seed, world.images]).permutation(world.images)
    race = Race.of(world.images) if arm.race else None
    plan = planner(arm, world.space, seed, published)
    history: list[Trial] = []
    found = Replay([], [], [], [])
    complete: list[int] = []
    best: list[Point] = []
    while not found.captions or (found.captions[-1] < budget and found.share[-1] < enough):
        members = {complete[place] for place in front([world.points[setting] for setting in complete])}
        known = [race_counts(world.counts(setting, images)) for setting in sorted(members)]
        for trial in plan.trials(history, len(history), len(history) + arm.round_size):
            setting = world.index(trial.params)
            judged = world.images
            if race is not None and known:
                runner = race_counts(world.counts(setting, images))
                judged = next((n for n in race.looks if race.dominator(runner, known, n) is not None), judged)
            raced = judged < world.images
            if not raced:
                complete.append(setting)
                best = [*best, world.points[setting]]
                best = [best[place] for place in front(best)]
            found.settings.append(setting)
            found.raced.append(raced)
            found.captions.append(judged + (found.captions[-1] if found.captions else 0))
            found.share.append(world.share(best))
            history.append(
                replace(trial, state="raced" if raced else "complete", metrics=world.metrics(setting, images[:judged]))
            )
    return found
