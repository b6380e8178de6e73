"""A study in a few sentences, the same in the terminal and on the page."""

from collections import Counter
from typing import Any

from kvtune.errors import KvtuneError, RequestError
from kvtune.search.selection import KEEP_F1, select
from kvtune.search.summary import State, StudySummary

_STATE_WORDS: dict[State, str] = {
    "complete": "complete",
    "raced": "raced out",
    "failed": "failed",
    "running": "running",
}


def subject(summary: StudySummary) -> str:
    """What was tuned on what."""
    images = summary.subset.get("images")
    name = summary.subset.get("name")
    return f"{summary.method} on {summary.model}, {_count(images, 'tune image')}" + (f" ({name})" if name else "")


def progress(summary: StudySummary) -> str:
    """How many trials there are in which state, and how many form the front."""
    if not summary.trials:
        return "no trial yet"
    counts = Counter(trial.state for trial in summary.trials)
    states = ", ".join(f"{counts[state]} {words}" for state, words in _STATE_WORDS.items() if counts[state])
    return f"{_count(len(summary.trials), 'trial')} ({states}); {len(summary.front)} on the front"


def volume(summary: StudySummary) -> str:
    """The hypervolume with its reference point."""
    if summary.baseline is None or summary.reference_point is None or summary.hypervolume is None:
        return "no hypervolume before the baseline is judged"
    reference = summary.reference_point
    return (
        f"hypervolume {summary.hypervolume:.1f} % of the box between (CHAIR_S {reference['chair_s']:.1f}, "
        f"F1 {reference['f1']:.1f}) and (0, 100)"
    )


def choice(summary: StudySummary, rule: str = KEEP_F1) -> dict[str, Any]:
    """What ``kvtune export`` would take: ``{"trial", "rule", "reason"}``.

    ``trial`` is None where the rule finds no point (yet), and ``reason`` then says why.

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
        return {"trial": None, "rule": rule, "reason": str(error)}
    return {"trial": selection.trial.number, "rule": rule, "reason": f"{selection.rule}, on {selection.on} images"}


def _count(number: Any, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
