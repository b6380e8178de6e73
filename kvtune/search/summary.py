"""What a study found, as plain data: the only thing that reports and exports read."""

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["complete", "raced", "failed", "running"]


@dataclass(frozen=True)
class TrialSummary:
    """One judged setting, or the baseline.

    Attributes
    ----------
    number
        Trial number; None for the baseline.
    params
        The method's parameters; empty for the baseline.
    chair_s, chair_i, precision, recall, f1
        Percent, 0-100; None while no image has been judged.
    mean_words
        Tokens per caption after joining pairs, punctuation included.
    images
        Tune images judged so far.
    published
        True for the family's published preset (trial 0 where there is one).
    intervals
        95 % intervals by metric name, where they were computed.
    """

    number: int | None
    params: dict[str, Any]
    chair_s: float | None
    chair_i: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    mean_words: float | None
    images: int
    state: State
    published: bool = False
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudySummary:
    """A study as ``kvtune pareto --json`` prints it.

    Attributes
    ----------
    study, model, method
        Names.
    subset
        ``{"name", "sha256", "images"}`` of the tune subset.
    baseline
        The same model on the same images with no method; None until it is judged.
    trials
        By number.
    front
        Numbers of the non-dominated complete trials, by rising CHAIR_S.
    hypervolume
        Percent of the box from the reference point to (0, 100); None without a baseline.
    reference_point
        ``{"chair_s", "f1"}``: the baseline's CHAIR_S + 5 points and F1 - 10 points.
    """

    study: str
    model: str
    method: str
    subset: dict[str, Any]
    baseline: TrialSummary | None
    trials: list[TrialSummary]
    front: list[int]
    hypervolume: float | None
    reference_point: dict[str, float] | None
