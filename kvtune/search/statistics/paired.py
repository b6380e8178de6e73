"""Tests of one setting against another on the same images, and what testing several at once costs."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


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
    differing = only_one + only_other
    tail = sum(math.comb(differing, heads) for heads in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**differing)  # whole numbers of any size, so nothing is lost before the division


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
