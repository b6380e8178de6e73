"""``--enqueue``: settings that a person wants tried next."""

from collections.abc import Sequence

from kvtune.errors import RequestError
from kvtune.methods import CHOICE
from kvtune.spaces import SearchSpace
from kvtune.study.manifest import TrialPoint
from kvtune.study.trials import Trial
from kvtune.text import did_you_mean, quoted


def parse_point(text: str, space: SearchSpace) -> dict[str, int | float | str]:
    """Read a point of a space from ``lambda_ref=0.5,queue_length=8,...``, with ``method=pai`` among alternatives.

    Raises
    ------
    RequestError
        If a parameter is missing, unknown, named twice or no number, or its value is not in the range.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in given:
            raise RequestError(f"--enqueue: {quoted(name)} is there twice; write NAME=VALUE,... once each")
        given[name] = value
    point: dict[str, int | float | str] = {}
    if space.alternatives.is_choice:
        try:
            point[CHOICE] = space.alternatives.chosen(given)
        except RequestError as error:
            raise RequestError(f"--enqueue: {error}") from None
        del given[CHOICE]
    ranges = space.searched(point)
    names = ", ".join([*point, *ranges])
    for name, value in given.items():
        if name not in ranges:
            wrong = f"{quoted(name)} is no parameter that is searched{did_you_mean(name, ranges) or ';'}"
            raise RequestError(f"--enqueue: {wrong} write NAME=VALUE,... of {names}")
        searched = ranges[name]
        try:
            number = int(value) if searched.whole else float(value)
        except ValueError:
            kind = "whole number" if searched.whole else "number"
            raise RequestError(f"--enqueue: {name} must be a {kind}, not {quoted(value)}") from None
        if not searched.contains(number):
            step = "" if searched.step is None else f" in steps of {searched.step:g}"
            raise RequestError(
                f"--enqueue: {name} must be from {searched.low:g} to {searched.high:g}{step}, not {value}"
            )
        point[name] = number
    missing = [name for name in ranges if name not in point]
    if missing:
        raise RequestError(f"--enqueue: {', '.join(missing)} is missing; a setting has {names}")
    return {name: point[name] for name in (CHOICE, *ranges) if name in point}


def enqueue(
    texts: Sequence[str], space: SearchSpace, before: Sequence[TrialPoint], trials: Sequence[Trial], given: int
) -> list[TrialPoint]:
    """What is tried next: what was asked for before, and these, each with the number of the trial that it will be.

    Parameters
    ----------
    trials
        The study's trials so far.
    given
        How many first trials are fixed otherwise (published preset, front of another study).

    Raises
    ------
    RequestError
        If one is no point of the space, or was tried already.
    """
    found = list(before)
    known = {trial.number: trial.params for trial in trials} | {each.trial: space.full(each.point) for each in before}
    for text in texts:
        point = parse_point(text, space)
        same = next((number for number, params in known.items() if params == space.full(point)), None)
        if same is not None:
            raise RequestError(f"--enqueue {text}: trial {same} has that very setting")
        number = max([given, len(trials), *(each.trial + 1 for each in found)])
        found.append(TrialPoint(trial=number, point=point))
        known[number] = space.full(point)
    return found
