"""Simulated studies: how often a study's 95 % intervals hold what is true.

The truth is a pool of scenes on which a few dozen settings were recorded. A study draws its tune and its held-out
images from the pool, with replacement, so that the pool's rates are exactly what it estimates, whatever the pool's
size. It chooses a setting on the tune images by the rule of ``kvtune export`` and reports it on the held-out ones, with
the intervals of ``kvtune pareto`` and ``kvtune validate``. An interval covers if the pool's rate of the chosen setting
is in it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.analysis.selection import KEEP_F1, select
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.bench.search.table import Table, load_table
from kvtune.chair import METRICS, Scores, rates
from kvtune.errors import KvtuneError
from kvtune.presets import SubsetInfo
from kvtune.statistics.bootstrap import RESAMPLES, Bootstrap
from kvtune.statistics.front import front_numbers

POOL = Path(__file__).parent / "pool.npz"
"""The pool that ships."""


def simulate(
    path: Path | None = None,
    studies: int = 1000,
    images: int = 500,
    rule: str = KEEP_F1,
    seed: int = 0,
    resamples: int = RESAMPLES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Simulate studies.

    Parameters
    ----------
    path
        A recorded pool; None for :data:`POOL`.
    studies
        Number of studies.
    images
        Tune images of a study, and held-out images.
    rule
        See :data:`kvtune.analysis.selection.RULES`.
    seed
        Of the draws.
    resamples
        Of each bootstrap.

    Returns
    -------
    dict
        ``coverage``: for each metric, the percentage of studies whose interval of the chosen setting covers, held out
        and on the tune images; the same for the difference to the baseline; and the mean error (interval's estimate
        minus truth) of both, in points. ``none`` is the number of studies in which the rule chose nothing.

    Raises
    ------
    RequestError
        If the pool is missing or damaged.
    """
    table = load_table(path or POOL)
    world = Pool(table)
    draw = np.random.default_rng(seed)
    found: list[dict[str, NDArray[np.float64]]] = []
    for number in range(studies):
        tune, held_out = draw.integers(0, world.images, (2, images))
        chosen = world.chosen(tune, rule)
        if chosen is not None:
            found.append(
                {"held_out": world.judged(chosen, held_out, resamples)}
                | {"tune": world.judged(chosen, tune, resamples)}
            )
        on_progress(number + 1, studies)
    return {
        "pool": {"images": world.images, "settings": world.settings, "weights": table.recorded.weights},
        "studies": studies,
        "images": images,
        "rule": rule,
        "none": studies - len(found),
        "coverage": {
            metric: {
                kind: _covered(np.array([study[kind][place] for study in found]).reshape(-1, 4))
                for kind in ("held_out", "tune")
            }
            for place, metric in enumerate(METRICS)
        },
    }


class Pool:
    """A recorded pool as the truth.

    Attributes
    ----------
    images, settings
        How many there are; settings that are the same method count once, the baseline not at all.
    """

    def __init__(self, table: Table) -> None:
        self._counts = table.counts()
        self.settings, self.images = len(self._counts) - 1, self._counts.shape[1]
        self._truth = rates(self._counts.sum(axis=1))

    def chosen(self, images: NDArray[np.int64], rule: str) -> int | None:
        """The setting that a study on these images exports; None if the rule finds none."""
        totals = self._counts[:, images].sum(axis=1)
        baseline, *trials = (
            _trial(Scores.of(sums, images=len(images)), setting) for setting, sums in enumerate(totals)
        )
        summary = StudySummary(
            study="simulated",
            model="demo",
            method="kvsmooth",
            subset=SubsetInfo(name="simulated", sha256="", images=len(images)),
            baseline=baseline,
            trials=trials,
            front=front_numbers(trials),
            hypervolume=None,
            reference_point=None,
        )
        try:
            number = select(summary, rule).trial.number
        except KvtuneError:
            return None
        return None if number is None else number + 1

    def judged(self, setting: int, images: NDArray[np.int64], resamples: int) -> NDArray[np.float64]:
        """For each metric whether the interval covers, its error, and the same of the difference to the baseline.

        Returns
        -------
        NDArray
            Shape ``[len(METRICS), 4]``.
        """
        bootstrap = Bootstrap(self._counts[[0, setting]][:, images], resamples)
        rows = []
        for metric in METRICS:
            truth, baseline = float(self._truth[metric][setting]), float(self._truth[metric][0])
            low, high = bootstrap.interval(metric, 1)
            difference, (least, most) = bootstrap.difference(metric, 1, 0)
            error = float(bootstrap.estimates[metric][1]) - truth
            true_difference = truth - baseline
            rows.append([low <= truth <= high, error, least <= true_difference <= most, difference - true_difference])
        return np.array(rows, dtype=np.float64)


def _trial(scores: Scores, setting: int) -> TrialSummary:
    """A setting as a study's summary has it; setting 0 is the baseline."""
    return TrialSummary(setting - 1 if setting else None, {}, scores, scores.images, "complete")


def _covered(rows: NDArray[np.float64]) -> dict[str, float]:
    if not len(rows):
        return {}
    rate, error, difference, difference_error = rows.mean(axis=0).tolist()
    return {
        "covered": 100 * rate,
        "mean_error": error,
        "difference_covered": 100 * difference,
        "difference_mean_error": difference_error,
    }
