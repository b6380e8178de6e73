"""A study in a few sentences, the same in the terminal and on the page."""

from collections import Counter
from typing import Any

from kvtune.errors import KvtuneError, RequestError
from kvtune.search.claims import claims
from kvtune.search.selection import KEEP_F1, select
from kvtune.search.summary import State, StudySummary

_STATE_WORDS: dict[State, str] = {
    "complete": "complete",
    "raced": "raced out",
    "failed": "failed",
    "running": "running",
}

_CUTS_SHOWN = 6
"""Cuts of the baseline that a terminal has room for; the files have them all."""


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
    reference, estimate = summary.reference_point, summary.hypervolume_estimate
    text = (
        f"hypervolume {summary.hypervolume:.1f} % of the box between (CHAIR_S {reference['chair_s']:.1f}, "
        f"F1 {reference['f1']:.1f}) and (0, 100)"
    )
    if estimate is None:
        return text
    low, high = estimate.interval
    return f"{text}; {estimate.corrected:.1f} less the luck of its front (95 % interval {low:.1f} to {high:.1f})"


def ties(summary: StudySummary) -> str | None:
    """Which points of the front cannot be told apart on these images; None where all can or nobody looked."""
    pairs = []
    for trial in summary.trials:
        others = [str(other) for other in trial.ties if trial.number is not None and other > trial.number]
        if others:
            pairs.append(f"{trial.number} with {', '.join(others)}")
    return f"Tied on the front (paired 95 % intervals contain 0): {'; '.join(pairs)}" if pairs else None


def against_baseline(summary: StudySummary, number: int) -> str | None:
    """The trial against the baseline, on the images that it was searched on; None where nobody looked."""
    found = claims(next(trial for trial in summary.trials if trial.number == number))
    if not found:
        return None
    return (
        f"Trial {number} against the baseline: {'; '.join(found)}. "
        "It was chosen on these images: kvtune validate measures it on others"
    )


def cut_baseline(summary: StudySummary) -> str | None:
    """The baseline cut to its first sentences; None where nobody looked."""
    if not summary.cut_baseline:
        return None
    shown = summary.cut_baseline[:_CUTS_SHOWN]
    cuts = [f"{cut.sentences}: {cut.chair_s:.1f}, {cut.f1:.1f} ({cut.mean_words:.0f} words)" for cut in shown]
    return f"Baseline cut to N sentences, N: CHAIR_S, F1: {'; '.join(cuts)}" + (
        "; ..." if len(summary.cut_baseline) > _CUTS_SHOWN else ""
    )


def length_flags(summary: StudySummary, chosen: int | None = None) -> list[str]:
    """Which of front, published preset and chosen trial do not beat the baseline cut to as many words, and why."""
    named = [t for t in summary.trials if t.number in summary.front or t.published or t.number == chosen]
    return [
        f"Trial {trial.number} does not beat the cut baseline: {trial.length.flag}"
        for trial in named
        if trial.length is not None and trial.length.flag is not None
    ]


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
