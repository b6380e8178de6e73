"""What keeps a trial off the front although it is finished: it was raced out, or is below a floor.

Optuna is told the same, as constraints that a trial meets where they are 0 or less: its samplers prefer trials that
meet them, and ``study.best_trials`` lists no others.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvtune.errors import RequestError
from kvtune.statistics.front import front_numbers
from kvtune.study.trials import Trial
from kvtune.text import quoted

FLOORS = {"f1": "min_f1", "mean_words": "min_words"}
"""Metrics that may have a floor, and the names of their constraints."""

_LONGEST = 12
"""Characters of a floor's number."""

_FLOOR = re.compile(r"(baseline)?\s*([+-]?\s*\d+(?:\.\d+)?)?")


@dataclass(frozen=True)
class Constraints:
    """The constraints of a study.

    Attributes
    ----------
    race
        Whether trials are raced. If they are, every trial has that constraint, because Optuna's GP sampler wants the
        same ones of all.
    floors
        The least value of a metric of :data:`FLOORS`.
    """

    race: bool = False
    floors: Mapping[str, float] = field(default_factory=dict)

    def of(self, trial: Trial) -> dict[str, float]:
        """A trial's constraints by name, empty before it is judged.

        ``raced`` is 1 for a raced trial and -1 for a complete one; that of a floor is how far the trial is below it.
        """
        if trial.metrics is None:
            return {}
        found = {"raced": 1.0 if trial.state == "raced" else -1.0} if self.race else {}
        return found | {FLOORS[metric]: least - trial.metrics[metric] for metric, least in self.floors.items()}

    def met_by(self, trial: Trial) -> bool:
        """Whether a trial may be on the front: complete and not below a floor."""
        return trial.state == "complete" and not self.below(trial.metrics or {})

    def front(self, trials: Iterable[Trial]) -> list[int]:
        """Numbers of the trials on the front, by rising CHAIR_S: those that may be on it and that none of these
        dominates."""
        return front_numbers(trial for trial in trials if self.met_by(trial))

    def below(self, metrics: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics that are below their floor."""
        return tuple(metric for metric, least in self.floors.items() if metrics[metric] < least)


def check_floor(text: str) -> str:
    """Return a floor as it is kept: ``72``, ``baseline``, ``baseline-2``.

    Raises
    ------
    RequestError
        If it is none.
    """
    found = _FLOOR.fullmatch(text.strip())
    if found is None or not (found[1] or (found[2] and found[2][0] not in "+-")):
        raise RequestError(f"{quoted(text)} is no floor; write a number (72), baseline, or baseline-2")
    amount = (found[2] or "0").replace(" ", "")
    if len(amount) > _LONGEST:
        raise RequestError(f"{quoted(text)} is no floor; write it with fewer digits")
    number = f"{float(amount):+.6f}".rstrip("0").rstrip(".")  # no exponent, which is no floor as it is written
    return f"baseline{number}" if found[1] and float(number) else found[1] or number[1:]


def floor_value(text: str, baseline: float) -> float:
    """The value of a floor that :func:`check_floor` returned, where the baseline has ``baseline``."""
    relative = text.startswith("baseline")
    return (baseline if relative else 0.0) + float(text.removeprefix("baseline") or 0)


def constraints_of(race: bool, floors: Mapping[str, str | None], baseline: Trial) -> Constraints:
    """The constraints of a study; floors, by metric as they are kept, are known once its baseline is judged."""
    if baseline.metrics is None:
        return Constraints(race)
    known = baseline.metrics
    return Constraints(
        race, {name: floor_value(text, known[name]) for name, text in floors.items() if text is not None}
    )
