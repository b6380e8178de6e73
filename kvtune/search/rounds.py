"""Which settings a round of trials tries: a pure function of what came before it, the seed and the space.

Trials are asked in rounds of a fixed size; round ``r`` holds the trials numbered from ``r * size`` on. A round is
planned by a fresh sampler, seeded by (seed, round), from all trials of earlier rounds and nothing else. So a round can
be planned again after an interruption, in whole or in part, and comes out the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import optuna

from kvtune.search.samplers import grid_points, make_sampler, round_seed
from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints
from kvtune.study.optuna_trials import frozen_trial
from kvtune.study.search_defaults import SamplerName
from kvtune.study.trials import Trial

ASKS_FOR_SOMETHING_NEW = 5
"""How often a sampler that repeats an earlier setting is asked again before a new one is drawn at random."""

DRAWS_OF_SOMETHING_NEW = 100
"""How often is drawn before a repetition is accepted, because the space has hardly anything else."""


@dataclass(frozen=True)
class Plan:
    """How a study's trials are determined.

    Attributes
    ----------
    size
        Trials in a round.
    published
        Full settings that the first trials have: those published for the model that are in the space.
    start
        Points of the space that come next, all different: the front of another study.
    enqueued
        Points of the space by the number of the trial that is to be them, whatever the sampler says.
    constraints
        What the sampler is told of finished trials beside their scores.
    """

    space: SearchSpace
    sampler: SamplerName
    seed: int
    size: int
    published: Sequence[dict[str, Any]] = ()
    start: Sequence[dict[str, Any]] = ()
    enqueued: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    constraints: Constraints = field(default_factory=Constraints)

    def trials(self, history: Sequence[Trial], start: int, stop: int) -> list[Trial]:
        """The trials numbered from ``start`` to ``stop``, which lie in one round.

        Parameters
        ----------
        history
            The study's trials; those from this round on are not looked at.

        Returns
        -------
        list
            The trials, running; fewer than asked for where a grid has no more points.
        """
        index = start // self.size
        first = index * self.size
        if stop > first + self.size:
            raise ValueError(f"trials {start} to {stop} are not in one round of {self.size}")
        if self.sampler == "grid":
            planned = self._grid_round(first, stop - first)
        else:
            planned = self._sampled_round(history[:first], index, stop - first)
        return planned[start - first :]

    def _grid_round(self, first: int, count: int) -> list[Trial]:
        given = self._given_points()
        elsewhere = [*given, *self.enqueued.values()]
        grid = (point for point in grid_points(self.space, self.seed) if point not in elsewhere)
        others = chain(given, grid)
        numbered = ((number, self.enqueued.get(number) or next(others, None)) for number in range(first + count))
        return [self._trial(number, point, {}) for number, point in islice(numbered, first, None) if point is not None]

    def _sampled_round(self, history: Sequence[Trial], index: int, count: int) -> list[Trial]:
        sampler = make_sampler(self.sampler, round_seed(self.seed, index), self.space.alternatives.is_choice)
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
        study.add_trials([frozen_trial(trial, self.space, self.constraints) for trial in history])
        seen = [trial.params for trial in history]
        for point in self._given_points()[index * self.size : (index + 1) * self.size]:
            study.enqueue_trial(point)
        planned = []
        for offset in range(count):
            if (wanted := self.enqueued.get(index * self.size + offset)) is not None:
                study.enqueue_trial(wanted)
            point, sampler_attrs = self._ask(study, seen)
            planned.append(self._trial(index * self.size + offset, point, sampler_attrs))
            seen.append(planned[-1].params)
        return planned

    def _ask(self, study: optuna.Study, seen: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask the sampler for a setting that no earlier trial has; the setting, and what the sampler notes of it."""
        for _ in range(ASKS_FOR_SOMETHING_NEW):
            asked = self._asked(study)
            # An enqueued trial has its parameters already; asking all the same lets NSGA-II give it a generation,
            # without which it would never be a parent.
            _ = asked.relative_params
            point = self.space.snapped(asked.params)
            attributes = study.get_trials(deepcopy=False)[asked.number].system_attrs
            if self.space.full(point) not in seen:
                break
            # A repetition stays running, so that TPE keeps away from it when it is asked again.
        else:
            point = self._drawn(seen) or point
        return point, {key: value for key, value in attributes.items() if key != "fixed_params"}

    def _drawn(self, seen: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """A random setting that no earlier trial has, if one is found."""
        study = optuna.create_study(sampler=make_sampler("random", round_seed(self.seed, -1 - len(seen))))
        for _ in range(DRAWS_OF_SOMETHING_NEW):
            point = self.space.snapped(self._asked(study).params)
            if self.space.full(point) not in seen:
                return point
        return None

    def _asked(self, study: optuna.Study) -> optuna.Trial:
        """Ask for a setting: first which method it has, where there are alternatives, then that one's parameters."""
        asked = study.ask(self.space.choice())
        for name, one in self.space.searched(asked.params).items():
            if one.whole:
                asked.suggest_int(name, int(one.low), int(one.high), step=int(one.step or 1), log=one.log)
            else:
                asked.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
        return asked

    def _given_points(self) -> list[dict[str, Any]]:
        """Points that no sampler chooses, from trial 0 on."""
        published = [point for setting in self.published if (point := self.space.point(setting)) is not None]
        return [*published, *(point for point in self.start if point not in published)]

    def _trial(self, number: int, point: dict[str, Any], sampler_attrs: dict[str, Any]) -> Trial:
        published = number < len(self.published)
        return Trial(number, params=self.space.full(point), published=published, sampler=sampler_attrs)
