"""The paired randomisation test of two settings on the same images (Fisher, 1935; Noreen, 1989), for any metric.

If two settings are alike, each image's two outcomes might as well be exchanged. So they are, image by image by the fall
of a coin, thousands of times, and the p-value is the share of exchanges that set the two at least as far apart as they
are: Chinchor, Hirschman and Lewis (1993, Computational Linguistics 19) test F1 so. For a share of captions this is
McNemar's test.

Where few images differ, the bootstrap finds no resample on the other side of 0 too soon. Share of p-values of at most 5
and 1 %, percent, of settings that are alike: n of 500 captions of LLaVA-1.5-7B beside the same with some sentences
dropped, which changed 6 % of the images' counts (few) or 60 % (many), exchanged at random; 350 to 1,500 samples each ::

    F1, n                       20          50          200         500
    bootstrap, few          2.4, 0.7    7.7, 2.0    3.9, 0.4    7.1, 2.6
    this test, few          0.3, 0      2.6, 0.3    3.1, 0.3    6.6, 1.7
    bootstrap, many         8.1, 3.2    6.3, 1.7    5.0, 0.9    5.1, 0.9
    this test, many         2.3, 0.3    4.1, 0.7    4.1, 0.4    4.3, 1.1
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtune.chair import METRICS, rates

EXCHANGES = 9999
"""The least p-value is 1 in 10,000, which 500 settings compared at once leave below 5 %."""

MOST_COINS = 10**7
"""At a time: 40 MB."""


def randomization_p_values(one: ArrayLike, other: ArrayLike, seed: int) -> dict[str, float]:
    """Two-sided p-values of no difference, by metric.

    Parameters
    ----------
    one, other
        Shape ``[images, len(COLUMNS)]``: what the captions of the same images came to under each setting; see
        :attr:`kvtune.chair.CaptionCounts.table`.
    seed
        Of the coins: the same data gives the same p-values.

    Returns
    -------
    dict
        By the names of :data:`kvtune.chair.METRICS`. The observed data counts as one exchange more, so that none is 0
        (Phipson and Smyth, 2010); 1 where no image differs.
    """
    first, second = np.asarray(one), np.asarray(other)
    differ = first - second
    # Sums of whole numbers below 2**24 are exact in float32.
    differ = differ[differ.any(axis=1)].astype(np.float32)
    if not len(differ):
        return dict.fromkeys(METRICS, 1.0)
    both = (first + second).sum(axis=0)
    whole = differ.sum(axis=0, dtype=np.float64)
    observed = _apart(both, whole)
    as_far = dict.fromkeys(METRICS, 1)
    generator = np.random.default_rng(seed)
    most = max(1, MOST_COINS // len(differ))
    for begun in range(0, EXCHANGES, most):
        rows = min(most, EXCHANGES - begun)
        bits = np.frombuffer(generator.bytes(-(-rows * len(differ) // 8)), dtype=np.uint8)
        coins = np.unpackbits(bits, count=rows * len(differ)).reshape(rows, len(differ)).astype(np.float32)
        exchanged = _apart(both, whole - 2.0 * (coins @ differ))
        for name, distance in exchanged.items():
            as_far[name] += int(np.sum(distance >= observed[name]))
    return {name: count / (1 + EXCHANGES) for name, count in as_far.items()}


def _apart(both: NDArray[Any], difference: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """How far two settings are apart by metric, from the sum of their counts and the difference."""
    one, other = rates((both + difference) / 2), rates((both - difference) / 2)
    # Rounded, so that what is equally far is not told apart by the last bit.
    return {name: np.abs(one[name] - other[name]).round(9) for name in METRICS}
