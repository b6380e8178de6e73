"""What is compared: samplers, rounds of one trial and of the default, with and without racing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import optuna

from kvtune.search.rounds import Plan
from kvtune.search.samplers import STARTUP_TRIALS, round_seed
from kvtune.spaces import SearchSpace
from kvtune.study import search_defaults
from kvtune.study.constraints import Constraints
from kvtune.study.trials import Trial
from kvtune.text import quoted

OPTUNA_TPE = "optuna-tpe"
"""TPE as Optuna sets it, asked as users of Optuna ask it."""

SAMPLERS = ("random", OPTUNA_TPE, "tpe", "nsga2", "gp")


@dataclass(frozen=True)
class Arm:
    """One way to search.

    Attributes
    ----------
    sampler
        One of :data:`SAMPLERS`.
    round_size
        Trials in a round.
    race
        Whether trials are raced.
    """

    sampler: str
    round_size: int
    race: bool

    @property
    def name(self) -> str:
        """As the command line takes it: ``tpe-8-race``, ``random-1``."""
        return f"{self.sampler}-{self.round_size}" + ("-race" if self.race else "")

    @classmethod
    def named(cls, name: str) -> "Arm":
        """The arm of that :attr:`name`.

        Raises
        ------
        ValueError
            If there is none.
        """
        found = re.fullmatch(rf"({'|'.join(SAMPLERS)})-([1-9]\d{{0,2}})(-race)?", name)
        if found is None:
            raise ValueError(f"unknown arm {quoted(name)}")
        return cls(found[1], int(found[2]), bool(found[3]))


DEFAULT = Arm(search_defaults.SAMPLER, search_defaults.PARALLEL_TRIALS, True)
"""What ``kvtune search`` does when nothing else is said."""

EXPERT = Arm("tpe", 1, False)
"""What an expert would set: multivariate TPE, one trial at a time, none raced."""

OPTUNA_DEFAULT = Arm(OPTUNA_TPE, 1, False)
"""Optuna as it is when nothing is said."""

YARDSTICKS = (EXPERT, OPTUNA_DEFAULT)
"""What the default is measured against, the fairest first."""

ARMS = [
    Arm(sampler, size, race)
    for sampler, size, race in product(SAMPLERS, (1, search_defaults.PARALLEL_TRIALS), (False, True))
    if sampler != "gp"  # a second a trial
]
"""What is compared when nothing is said."""


class Planner(Protocol):
    """Chooses settings; :class:`kvtune.search.rounds.Plan` is one."""

    def trials(self, history: Sequence[Trial], start: int, stop: int) -> list[Trial]:
        """The trials numbered from ``start`` to ``stop``, which are a round."""


def planner(arm: Arm, space: SearchSpace, seed: int, published: dict[str, Any] | None) -> Planner:
    """Who chooses the settings of an arm; trial 0 has the ``published`` ones where they are given."""
    constraints = Constraints(arm.race)
    if arm.sampler == OPTUNA_TPE:
        return _OptunaStudy(space, seed, published, constraints)
    if arm.sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {quoted(arm.sampler)}")
    given = [] if published is None else [published]
    return Plan(space, arm.sampler, seed, arm.round_size, given, constraints=constraints)  # type: ignore[arg-type]


class _OptunaStudy:
    """One study and one sampler from beginning to end, a round asked before any of it is told.

    Only the start-up count is set, to the one that kvtune's samplers have, which is Optuna's own.
    """

    def __init__(
        self, space: SearchSpace, seed: int, published: dict[str, Any] | None, constraints: Constraints
    ) -> None:
        self._space, self._constraints = space, constraints
        sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=round_seed(seed, 0))
        self._study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
        self._asked: list[optuna.Trial] = []
        if published is not None:
            self._study.enqueue_trial(space.point(published) or {})

    def trials(self, history: Sequence[Trial], start: int, stop: int) -> list[Trial]:
        for asked, trial in zip(self._asked, history[-len(self._asked) :], strict=True):
            for name, value in self._constraints.of(trial).items():
                asked.set_constraint(name, value)
            self._study.tell(asked, list(trial.point or ()))
        self._asked = [self._study.ask(self._space.distributions()) for _ in range(start, stop)]
        return [
            Trial(asked.number, params=self._space.full({name: asked.params[name] for name in self._space.parameters}))
            for asked in self._asked
        ]
