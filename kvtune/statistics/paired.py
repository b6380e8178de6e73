"""Tests of one setting against another on the same images, and what testing several at once costs."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from kvtune.statistics.confidence import CONFIDENCE, Interval


def mcnemar(one: ArrayLike, other: ArrayLike) -> float:
    """Exact McNemar test (Q. McNemar, 1947, Psychometrika 12) of two yes-or-no outcomes of the same images.

    Of the images on which the two differ, as many go either way by chance as heads fall: the p-value is that of the
    exact two-sided binomial test, which holds for any number of images.

    Parameters
    ----------
    one, other
        Shape ``[images]``; whether each image's caption hallucinates, under each setting.

    Returns
    -------
    float
        The p-value; 1 where no image differs.
    """
    first, second = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"outcomes of {first.shape} and {second.shape} images are not paired")
    only_one, only_other = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    from scipy.stats import binomtest

    return float(binomtest(only_one, only_one + only_other).pvalue) if only_one or only_other else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false rejection among them is bounded.

    The step-down procedure of S. Holm (1979, Scandinavian Journal of Statistics 6); it asks nothing of how the tests
    depend on each other.

    Returns
    -------
    list of float
        In the order given, each at least the p-value it was and at most 1.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def share_difference_interval(one: ArrayLike, other: ArrayLike) -> Interval:
    """95 % interval of the difference of two shares of the same images (Bonett and Price, 2012, JEBS 37).

    Wald's interval with two images more, one that differs either way. As Wilson's does for one share, it has a width
    where no image differs, and covers close to its level, or more, where few do.

    Parameters
    ----------
    one, other
        As for :func:`mcnemar`; at least one image.

    Returns
    -------
    (float, float)
        Bounds of the share of ``one`` minus that of ``other``, percentage points, -100 to 100.
    """
    first, second = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    images = len(first) + 2
    only_one, only_other = (1 + np.sum(first & ~second)) / images, (1 + np.sum(second & ~first)) / images
    middle = only_one - only_other
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * np.sqrt((only_one + only_other - middle**2) / images)
    return 100 * max(-1.0, float(middle - half)), 100 * min(1.0, float(middle + half))


def wilson_interval(hits: int, total: int) -> Interval:
    """The 95 % interval of shares that a score test does not reject (E. B. Wilson, 1927, JASA 22).

    It stays inside 0 to 100, has a width also at both ends, and covers close to its level for small counts (Brown, Cai
    and DasGupta, 2001, Statistical Science 16), where the usual p ± 1.96 s.e. does neither.

    Parameters
    ----------
    hits, total
        Of ``total`` captions, 1 or more, ``hits`` have what is counted.

    Returns
    -------
    (float, float)
        Bounds in percent.
    """
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f"{hits} of {total} is no share")
    from scipy.stats import binomtest

    found = binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    # Rounding must not take the ends off 0 and 100 where no or every caption is hit.
    return 100 * float(found.low) if hits else 0.0, 100 * float(found.high) if hits < total else 100.0
