"""How long a whole search would take, from a measured slice of it: an extrapolation, and named so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Slice:
    """The part of a run that is like any moment of a longer one.

    Attributes
    ----------
    steady
        False where the run was too short to have such a part, and is taken whole: too slow rather than too fast.
    first, captions, seconds
        Captions that were finished before it, in it, and how long it took.
    edges
        Seconds that filling and emptying the grid cost beside it.
    """

    steady: bool
    first: int
    captions: int
    seconds: float
    edges: float

    @property
    def rate(self) -> float:
        """Captions a second."""
        return self.captions / self.seconds


def steady_slice(finished: Sequence[float], rows: int) -> Slice:
    """What lies between the first turn of all rows and the last, if that is a turn at least.

    While the grid fills and while it empties, rows stand idle. A run has a steady slice if it makes three times as
    many captions as it has rows.

    Parameters
    ----------
    finished
        Seconds from the start of the run at which each caption was finished, ascending.
    rows
        Captions decoded at once.
    """
    total = len(finished)
    first, last = rows, total - rows
    if last - first < rows:
        return Slice(False, 0, total, finished[-1], 0.0)
    captions, seconds = last - first, finished[last - 1] - finished[first - 1]
    return Slice(True, first, captions, seconds, max(0.0, finished[-1] - total * seconds / captions))


def extrapolated_sweep(
    finished: Sequence[float],
    rows: int,
    parallel_trials: int,
    baseline_seconds: float,
    trials: int = 50,
    images: int = 500,
) -> dict[str, Any]:
    """What ``trials`` trials on ``images`` images would take at the speed of a measured run.

    The speed of a round is that of :func:`steady_slice`; what filling and emptying the grid cost is added to each. What
    is left for the last round has fewer rows to a prompt and takes longer a trial: its time is taken from the line
    through those of the baseline, which is one trial alone, and of a full round.

    Parameters
    ----------
    finished, rows
        As :func:`steady_slice` takes them.
    parallel_trials
        Trials of the run, which are those of a round.
    baseline_seconds
        Measured seconds of a caption without a method.

    Returns
    -------
    dict
        The measured slice, the arithmetic in words, and ``seconds``, JSON-ready.
    """
    part = steady_slice(finished, rows)
    rounds, left = divmod(trials, parallel_trials)
    one = images * baseline_seconds
    full = parallel_trials * images / part.rate + part.edges
    last = one + (left - 1) / (parallel_trials - 1) * max(full - one, 0) if left else 0.0
    arithmetic = (
        f"{rounds} rounds x ({parallel_trials} x {images} captions / {part.rate:.2f} captions/s + {part.edges:.1f} s) "
        + (f"+ a round of {left} x {images}, {last:.1f} s " if left else "")
        + f"+ baseline {images} x {baseline_seconds:.4f} s"
    )
    return {
        "extrapolated": True,
        "trials": trials,
        "images": images,
        "parallel_trials": parallel_trials,
        "steady": part.steady,
        "measured": {
            "captions": part.captions,
            "seconds": part.seconds,
            "captions_per_second": part.rate,
            "from_caption": part.first,
            "of_captions": len(finished),
            "edge_seconds_a_round": part.edges,
            "baseline_seconds_a_caption": baseline_seconds,
        },
        "arithmetic": arithmetic,
        "seconds": rounds * full + last + one,
    }
