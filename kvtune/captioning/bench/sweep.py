"""How long a whole search would take, from a measured slice of it: an extrapolation, and named so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def extrapolated_sweep(
    finished: Sequence[float],
    rows: int,
    parallel_trials: int,
    baseline_seconds: float,
    trials: int = 50,
    images: int = 500,
) -> dict[str, Any]:
    """What ``trials`` trials on ``images`` images would take at the speed of a measured run.

    While the grid fills and while it empties, rows stand idle. Between the first turn of all rows and the last, the run
    is like any moment of a longer one; its speed is taken there. What filling and emptying cost is added once a round.

    Parameters
    ----------
    finished
        Seconds from the start of the run at which each caption was finished, ascending.
    rows
        Captions decoded at once.
    parallel_trials
        Trials of the run, which are those of a round.
    baseline_seconds
        Measured seconds of a caption without a method.

    Returns
    -------
    dict
        The measured slice, the arithmetic in words, and ``seconds``, JSON-ready. ``steady`` is False where the run was
        too short to have such a slice; then its speed as a whole is taken, which is too slow rather than too fast.
    """
    total = len(finished)
    first, last = rows, total - rows
    steady = last - first >= rows
    if steady:
        captions, seconds = last - first, finished[last - 1] - finished[first - 1]
        edges = max(0.0, finished[-1] - total * seconds / captions)
    else:
        captions, seconds, edges = total, finished[-1], 0.0
    rate = captions / seconds
    rounds = math.ceil(trials / parallel_trials)
    needed = trials * images
    baseline = images * baseline_seconds
    return {
        "extrapolated": True,
        "trials": trials,
        "images": images,
        "parallel_trials": parallel_trials,
        "steady": steady,
        "measured": {
            "captions": captions,
            "seconds": seconds,
            "captions_per_second": rate,
            "from_caption": first if steady else 0,
            "of_captions": total,
            "edge_seconds_a_round": edges,
            "baseline_seconds_a_caption": baseline_seconds,
        },
        "arithmetic": (
            f"{trials} x {images} captions / {rate:.2f} captions/s + {rounds} rounds x {edges:.1f} s "
            f"+ baseline {images} x {baseline_seconds:.4f} s"
        ),
        "seconds": needed / rate + rounds * edges + baseline,
    }
