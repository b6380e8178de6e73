"""The hypervolume of a front, how sure it is, and how much of it is luck."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtune.statistics.confidence import CONFIDENCE, Interval
from kvtune.statistics.front import Point


@dataclass(frozen=True)
class HypervolumeEstimate:
    """A hypervolume measured on a sample of images.

    The front takes, of many settings, those that these images favour, so its hypervolume is too high on average, as
    every maximum over noisy values is. The bootstrap measures by how much (Efron and Tibshirani, 1993, chapter 10):
    resampling adds the same luck once more. With many settings close to the front that is an underestimate, so the
    corrected value is closer to the truth but may still be high; ``kvtune validate`` measures it on other images.

    Attributes
    ----------
    observed
        Hypervolume of the front as it is, percent of the box from the reference point to (0, 100).
    bias
        Mean of the resamples minus ``observed``: the estimated luck in it.
    corrected
        ``observed`` minus ``bias``, not below 0.
    interval
        95 %: the percentile interval of the resamples, which have the luck twice, moved down by twice the bias and
        kept within 0 to 100.
    """

    observed: float
    bias: float
    corrected: float
    interval: Interval


def hypervolume_estimate(observed: float, chair_s: ArrayLike, f1: ArrayLike, reference: Point) -> HypervolumeEstimate:
    """Correct a hypervolume for the luck in it.

    Parameters
    ----------
    observed
        Of the points themselves.
    chair_s, f1
        Shape ``[resamples, points]``: bootstrap replicates of every complete trial, not of the front's alone, since
        other images may put others on it.
    reference
        (CHAIR_S, F1), held fixed.
    """
    found = hypervolumes(chair_s, f1, reference)
    bias = float(np.mean(found)) - observed
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return HypervolumeEstimate(
        observed=observed,
        bias=bias,
        corrected=_percent(observed - bias),
        interval=(_percent(float(low) - 2 * bias), _percent(float(high) - 2 * bias)),
    )


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The share of the box from ``reference`` to the best point there can be, (0, 100), that ``points`` dominate.

    Parameters
    ----------
    points
        Any points; those that do not improve on the reference in both objectives add nothing.
    reference
        (CHAIR_S, F1), see :func:`kvtune.statistics.front.reference_point`.

    Returns
    -------
    float
        Percent of the box, 0-100.
    """
    chair_s, f1 = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return float(hypervolumes(chair_s[None], f1[None], reference)[0])


def hypervolumes(chair_s: ArrayLike, f1: ArrayLike, reference: Point) -> NDArray[np.float64]:
    """The :func:`hypervolume` of each row of points.

    Parameters
    ----------
    chair_s, f1
        Shape ``[rows, points]``, percent.

    Returns
    -------
    NDArray
        Shape ``[rows]``.
    """
    chair, gain = np.asarray(chair_s, dtype=np.float64), np.asarray(f1, dtype=np.float64)
    if not chair.shape[1]:
        return np.zeros(len(chair))
    order = np.argsort(chair, axis=1)
    chair, gain = np.take_along_axis(chair, order, 1), np.take_along_axis(gain, order, 1)
    # From left to right, each point adds a strip from the highest F1 so far up to its own.
    reached = np.maximum.accumulate(np.maximum(gain, reference[1]), axis=1)
    before = np.concatenate([np.full((len(chair), 1), reference[1]), reached[:, :-1]], axis=1)
    area = np.sum(np.maximum(reference[0] - chair, 0) * (reached - before), axis=1)
    return 100 * area / (reference[0] * (100 - reference[1]))


def _percent(value: float) -> float:
    return min(100.0, max(0.0, value))
