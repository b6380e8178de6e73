"""Captions that searches spent until they found the front, summed up; infinite where one did not within its budget."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def quartiles(found: Sequence[float]) -> dict[str, Any]:
    """``median`` and ``quartiles``, each that of one of the searches; None where that one is infinite."""
    values = np.quantile(found, [0.25, 0.5, 0.75], method="inverted_cdf").tolist()
    low, middle, high = (value if math.isfinite(value) else None for value in values)
    return {"median": middle, "quartiles": [low, high]}


def ratio(ours: Sequence[float], theirs: Sequence[float], draws: int = 2000) -> dict[str, Any]:
    """``ratio`` of the medians with a 95 % bootstrap ``interval`` over searches, ours over theirs.

    Both are None unless every search of both got there: what a search costs that does not arrive, nobody knows.
    """
    if not np.isfinite([*ours, *theirs]).all():
        return {"ratio": None, "interval": None}
    rng = np.random.default_rng(0)
    over = np.median(rng.choice(ours, (draws, len(ours))), axis=1) / np.median(
        rng.choice(theirs, (draws, len(theirs))), axis=1
    )
    return {
        "ratio": float(np.median(ours) / np.median(theirs)),
        "interval": np.quantile(over, [0.025, 0.975]).tolist(),
    }
