"""How sure intervals and races are, unless another confidence is asked for."""

RACE_CONFIDENCE = 0.95
"""With which trials are raced unless another is asked for; see :mod:`kvtune.statistics.racing`."""


CONFIDENCE = 0.95
