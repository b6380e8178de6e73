"""What may be said of a difference to the baseline: better, worse, or neither for sure."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from kvtune.analysis.result import Difference
from kvtune.analysis.summary import TrialSummary
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.statistics.confidence import Interval

Verdict = Literal["better", "worse", "unclear"]


def verdict(metric: str, difference: Difference) -> Verdict:
    """``better`` or ``worse`` than the baseline if the 95 % interval and the adjusted p-value both say so, else
    ``unclear``; see :attr:`kvtune.analysis.result.Difference.is_clear`."""
    if not difference.is_clear:
        return "unclear"
    return "better" if (difference.value < 0) == (METRICS[metric].better == "lower") else "worse"


def claim(metric: str, difference: Difference) -> str:
    """One difference to the baseline in words, saying so where it may be none."""
    low, high = difference.interval
    found = verdict(metric, difference)
    sure = f"95 % interval {low:+.1f} to {high:+.1f}, unadjusted; {_p(difference.p_adjusted)}, Holm-adjusted"
    text = f"{METRICS[metric].label} {difference.value:+.1f} ({sure})"
    return text + {"better": "", "worse": ": worse", "unclear": ": may be chance"}[found]


def claims(trial: TrialSummary) -> list[str]:
    """What may be said of a trial against the baseline; empty where it was not compared."""
    return [claim(metric, trial.differences[metric]) for metric in OBJECTIVES if metric in trial.differences]


def evidence(intervals: Mapping[str, Interval], differences: Mapping[str, Difference]) -> dict[str, Any]:
    """What a preset carries beside the scores of a setting on some images.

    Keys
    ----
    intervals
        95 %, by metric.
    differences
        To the baseline, by metric: ``value``, ``interval``, ``p_value``, ``p_adjusted``; for none, no such key.
    verdict
        Of CHAIR_S and F1 against the baseline: ``better``, ``worse``, ``unclear`` (see :func:`verdict`).
    """
    found: dict[str, Any] = {"intervals": {name: list(bounds) for name, bounds in intervals.items()}}
    if differences:
        found["differences"] = {
            name: asdict(each) | {"interval": list(each.interval)} for name, each in differences.items()
        }
        found["verdict"] = {name: verdict(name, differences[name]) for name in OBJECTIVES}
    return found


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"
