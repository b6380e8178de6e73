"""What stands in the cells of a table: metrics, intervals and parameters, spelled alike in every view."""

from collections.abc import Sequence
from typing import Any

from kvtune.chair import METRICS

RATES = tuple(name for name, metric in METRICS.items() if metric.unit == "%")
"""The metrics in percent; their intervals are shown where there is room."""

LENGTH = tuple(name for name in METRICS if name not in RATES)
"""The others, how much is said: they stand last in every table, without intervals."""


def heading(name: str, *, ascii_only: bool = False) -> str:
    """Return a metric's label, with an arrow that says which way is better where the front is drawn by it."""
    metric = METRICS[name]
    if ascii_only or not metric.objective:
        return metric.label
    return f"{metric.label} {'↓' if metric.better == 'lower' else '↑'}"


def rate(value: float | None) -> str:
    """Return a metric's value with one decimal, or a dash where there is none."""
    return "-" if value is None else f"{value:.1f}"


def interval(bounds: Sequence[float], *, signed: bool = False) -> str:
    """Return the ends of an interval: ``41.0-52.5``, of a difference ``-5.0 to +1.2``."""
    low, high = bounds
    return f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f}-{high:.1f}"


def with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """Return a value with its interval on a second line, where there is one."""
    return rate(value) + ("" if bounds is None else f"\n{interval(bounds)}")


def number(value: Any) -> str:
    """Return a parameter's value: three significant digits, no ``True``/``False`` spelling."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
