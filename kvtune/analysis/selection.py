"""Choosing one point of a study: the rules of ``kvtune export --select``."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import METRICS
from kvtune.errors import KvtuneError, RequestError
from kvtune.statistics.front import Point
from kvtune.text import did_you_mean, quoted

KEEP_F1 = "keep-f1"
RULES = {
    KEEP_F1: "lowest CHAIR_S whose F1 is at least the baseline's",
    "knee": "front point farthest from the chord between the front's ends",
    "min-chair": "lowest CHAIR_S",
    "max-f1": "highest F1",
    "trial:N": "trial N, named by hand",
}
"""What ``--select`` takes, and what each means."""


@dataclass(frozen=True)
class Selection:
    """The chosen trial.

    Attributes
    ----------
    trial
        The trial, complete.
    rule
        The rule that chose it, in words.
    on
        The images on which the rule was applied.
    name
        What to call it where it is no trial, whose number is then None.
    """

    trial: TrialSummary
    rule: str
    on: str = "tune"
    name: str | None = None


@dataclass(frozen=True)
class Choice:
    """The trial that a rule chooses, if any.

    Attributes
    ----------
    trial
        Its number; None where the rule finds none, perhaps none yet.
    rule
        As it was asked for; one of :data:`RULES`.
    reason
        The rule in words, or why it finds none.
    """

    trial: int | None
    rule: str
    reason: str


def unknown_rule(rule: str, there: Iterable[str]) -> RequestError:
    """The error that ``--select`` takes no such rule, but those that are ``there``."""
    names = list(there)
    return RequestError(
        f"--select knows no {quoted(rule)}{did_you_mean(rule, names) or ';'} write one of {', '.join(names)}"
    )


def select(summary: StudySummary, rule: str = KEEP_F1) -> Selection:
    """Choose a complete trial by a rule of :data:`RULES`; one that is below a floor of the study is not chosen.

    Of trials that a rule puts level, the one that is better in the other objective is taken, then the first.

    Raises
    ------
    RequestError
        If there is no such rule or trial.
    KvtuneError
        If the study has no complete trial, or, for the default rule, none that keeps the baseline's F1; the message
        names the closest trial and the option that takes it.
    """
    if rule.startswith("trial:"):
        return Selection(_by_number(summary, rule), rule)
    if rule not in RULES:
        raise unknown_rule(rule, RULES)
    complete = [trial for trial in summary.trials if trial.state == "complete"]
    if not complete:
        raise KvtuneError(f"study {summary.study} has no complete trial to choose from yet; {more(summary)}")
    complete = [trial for trial in complete if not trial.below_floor]
    if not complete:
        raise KvtuneError(f"every complete trial of {summary.study} is below {floors(summary)}; search more trials")
    if rule == KEEP_F1:
        trial = _keeping_f1(summary, complete)
    elif rule == "knee":
        ordered = sorted(complete, key=_chair_first)
        members = [trial for trial in ordered if trial.number in summary.front]
        trial = members[knee([_point(trial) for trial in members])]
    else:
        trial = min(complete, key=_chair_first if rule == "min-chair" else _f1_first)
    return Selection(trial, RULES[rule])


def choose(summary: StudySummary, rule: str = KEEP_F1) -> Choice:
    """What ``kvtune export`` would take by a rule; as :func:`select`, but finding nothing is no error.

    Raises
    ------
    RequestError
        If there is no such rule or trial.
    """
    try:
        selection = select(summary, rule)
    except RequestError:
        raise
    except KvtuneError as error:
        return Choice(None, rule, str(error))
    return Choice(selection.trial.number, rule, f"{selection.rule}, on {selection.on} images")


def knee(front: Sequence[Point]) -> int:
    """Index of the front point farthest from the chord between the front's ends.

    Both objectives are first scaled to their range on the front, so that the chord runs from (0, 0) to (1, 1). The
    first of several that are equally far is taken, so for two points or one it is the end with the lowest CHAIR_S.

    Parameters
    ----------
    front
        Points of a front by rising CHAIR_S, so also by rising F1.
    """
    (low_chair, low_f1), (high_chair, high_f1) = front[0], front[-1]
    width, height = high_chair - low_chair, high_f1 - low_f1
    if width == 0 or height == 0:
        return 0
    distances = [abs((f1 - low_f1) / height - (chair - low_chair) / width) for chair, f1 in front]
    # Rounded, so that points which are equally far are not told apart by the last bit.
    distances = [round(distance / math.sqrt(2), 12) for distance in distances]
    return distances.index(max(distances))


def more(summary: StudySummary) -> str:
    """What brings more trials: the search that runs, or, of a study that nobody writes, the same command again."""
    if summary.in_use:
        return "wait for the process that works on it"
    work = f" and has {summary.in_work} trials in work" if summary.in_work else ""
    return f"it is stopped{work}: the kvtune search command that began it goes on with it"


def floors(summary: StudySummary) -> str:
    """The study's floors in words."""
    return "its floor of " + " and ".join(
        f"{METRICS[name].label} {least:.1f}" for name, least in summary.floors.items()
    )


def _keeping_f1(summary: StudySummary, complete: Sequence[TrialSummary]) -> TrialSummary:
    baseline = summary.baseline
    if baseline is None or baseline.scores is None:
        raise KvtuneError(f"study {summary.study} has no baseline yet; {more(summary)}")
    floor = baseline.scores.f1
    keeping = [trial for trial in complete if _point(trial)[1] >= floor]
    if keeping:
        return min(keeping, key=_chair_first)
    closest = min(complete, key=_f1_first)
    chair_s, f1 = _point(closest)
    raise KvtuneError(
        f"no trial of {summary.study} keeps the baseline's F1 of {floor:.2f}; the closest is trial {closest.number} "
        f"(CHAIR_S {chair_s:.2f}, F1 {f1:.2f}): --select trial:{closest.number} takes it"
    )


def _by_number(summary: StudySummary, rule: str) -> TrialSummary:
    text = rule.removeprefix("trial:")
    trial = next((trial for trial in summary.trials if str(trial.number) == text), None)
    if trial is None:
        last = max((trial.number for trial in summary.trials if trial.number is not None), default=None)
        there = "it has none yet" if last is None else f"its trials are 0 to {last}"
        raise RequestError(f"study {summary.study} has no trial {quoted(text)}; {there}")
    if trial.state != "complete":
        raise RequestError(f"trial {text} of {summary.study} is {trial.state}; only a complete trial can be exported")
    if trial.below_floor:
        raise RequestError(f"trial {text} of {summary.study} is below {floors(summary)}; choose one that is not")
    return trial


def _point(trial: TrialSummary) -> Point:
    assert trial.point is not None  # of a complete trial
    return trial.point


def _chair_first(trial: TrialSummary) -> tuple[float, float, int]:
    chair_s, f1 = _point(trial)
    return chair_s, -f1, trial.number or 0


def _f1_first(trial: TrialSummary) -> tuple[float, float, int]:
    chair_s, f1 = _point(trial)
    return -f1, chair_s, trial.number or 0
