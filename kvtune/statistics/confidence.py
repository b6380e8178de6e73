"""How sure intervals and races are, unless another confidence is asked for."""

CONFIDENCE = 0.95
"""Of intervals."""

RACE_CONFIDENCE = 0.95
"""With which trials are raced unless another is asked for; see :mod:`kvtune.statistics.racing`."""

Interval = tuple[float, float]
"""The ends of a 95 % interval."""
