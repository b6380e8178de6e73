"""The bootstrap over images (B. Efron, 1979, Annals of Statistics 7), as one matrix product.

A resample draws as many images as there are, with replacement; how often it holds each image is a multinomial draw. The
sums that a rate is made of are then weights times counts, for all settings at once. All settings share the resamples,
so differences between them are paired: what makes an image hard for both cancels (Koehn, 2004, EMNLP, uses the same for
BLEU; Berg-Kirkpatrick et al., 2012, EMNLP, compare it with other tests).

Intervals are percentile intervals (Efron and Tibshirani, 1993, chapter 13). The images are the only source of chance
that is counted: greedy decoding has none, and the tune images stand for the images that they were drawn from.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtune.chair import COLUMNS, METRICS, OBJECTIVES, CaptionCounts, rates
from kvtune.statistics.confidence import CONFIDENCE
from kvtune.statistics.paired import mcnemar, wilson_interval

Interval = tuple[float, float]

RESAMPLES = 2000
SEED = 0
"""Of every bootstrap: the same data gives the same intervals."""


MOST_DRAWS = 10**7
"""At a time: 160 MB."""


def resampling_weights(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """How often each of ``resamples`` bootstrap samples holds each image; shape ``[resamples, images]``.

    Rows sum to ``images``. Whole numbers, kept as float64 because matrix products of these are fast.
    """
    return np.concatenate(list(_weights(images, resamples, seed)))


def _weights(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The rows of :func:`resampling_weights`, as many at a time as memory should hold."""
    generator = np.random.default_rng(seed)
    most = max(1, MOST_DRAWS // images)
    for first in range(0, resamples, most):
        rows = min(most, resamples - first)
        draws = generator.integers(0, images, size=(rows, images))
        draws += np.arange(rows)[:, None] * images
        yield np.bincount(draws.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


class Bootstrap:
    """Rates of several settings on the same images, with everything that resampling the images says of them.

    Parameters
    ----------
    counts
        Shape ``[settings, images, len(COLUMNS)]``, whole numbers of 0 or more: for each setting what
        :attr:`kvtune.chair.CaptionCounts.table` holds, the images in the same order.
    resamples, seed
        See :func:`resampling_weights`.

    Attributes
    ----------
    estimates
        The rates of all images by name (:data:`kvtune.chair.METRICS`), each of shape ``[settings]``.
    """

    def __init__(self, counts: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> None:
        self._counts = np.asarray(counts)
        if self._counts.ndim != 3 or self._counts.shape[2] != len(COLUMNS) or not self._counts.shape[1]:
            raise ValueError(f"counts must be [settings, images, {len(COLUMNS)}], not {self._counts.shape}")
        self.settings, self.images = self._counts.shape[:2]
        self.resamples, self.seed = resamples, seed
        self.estimates = rates(self._counts.sum(axis=1))

    @cached_property
    def replicates(self) -> dict[str, NDArray[np.float64]]:
        """The rates of each resample by name, each of shape ``[resamples, settings]``."""
        by_image = np.moveaxis(self._counts, 1, 0).reshape(self.images, -1).astype(np.float64)
        sums = [weights @ by_image for weights in _weights(self.images, self.resamples, self.seed)]
        return rates(np.concatenate(sums).reshape(self.resamples, self.settings, len(COLUMNS)))

    def interval(self, metric: str, setting: int) -> Interval:
        """95 % interval of one rate of one setting.

        Wilson's for a share of captions (CHAIR_S); the bootstrap's for the others. Where these are at 0 or 100
        on every image, resampling sees no spread although other images may differ: there it is Wilson's for 0 or all
        of as many captions as there are images, which errs on the wide side.
        """
        share_of = METRICS[metric].share_of
        if share_of is not None:
            return wilson_interval(int(self._counts[setting, :, COLUMNS.index(share_of)].sum()), self.images)
        replicates = self.replicates[metric][:, setting]
        value = float(self.estimates[metric][setting])
        if METRICS[metric].unit == "%" and value in (0.0, 100.0) and np.all(replicates == value):
            return wilson_interval(self.images if value else 0, self.images)
        return percentile_interval(replicates)

    def intervals(self, setting: int) -> dict[str, Interval]:
        """95 % intervals of all rates of one setting, by name."""
        return {metric: self.interval(metric, setting) for metric in METRICS}

    def difference(self, metric: str, setting: int, other: int) -> tuple[float, Interval]:
        """``setting`` minus ``other`` on the same images, with the 95 % interval of the paired bootstrap."""
        estimate = self.estimates[metric][setting] - self.estimates[metric][other]
        return float(estimate), percentile_interval(self._differences(metric, setting, other))

    def p_value(self, metric: str, setting: int, other: int) -> float:
        """Two-sided p-value of no difference: McNemar's for CHAIR_S, the paired bootstrap's for the others."""
        share_of = METRICS[metric].share_of
        if share_of is not None:
            flags = self._counts[:, :, COLUMNS.index(share_of)]
            return mcnemar(flags[setting], flags[other])
        return bootstrap_p_value(self._differences(metric, setting, other))

    def tied(self, setting: int, other: int) -> bool:
        """Whether the paired 95 % intervals of the differences in CHAIR_S and in F1 both contain 0."""
        for metric in OBJECTIVES:
            low, high = percentile_interval(self._differences(metric, setting, other))
            if not low <= 0 <= high:
                return False
        return True

    def _differences(self, metric: str, setting: int, other: int) -> NDArray[np.float64]:
        found = self.replicates[metric]
        # Rounded, so that settings whose rates are equal do not differ by the last bit.
        return np.round(found[:, setting] - found[:, other], 9)


def score_intervals(counts: CaptionCounts) -> dict[str, Interval]:
    """95 % intervals of the rates of one set of captions, by name.

    As :meth:`Bootstrap.intervals`. Where images have several captions, images are resampled with all of theirs, for
    CHAIR_S too: captions of one image are not independent, as Wilson's interval takes them to be. Of a single image
    there is nothing to resample, and only Wilson's interval is given.
    """
    images, place = np.unique(counts.image_ids, return_inverse=True)
    table = np.zeros((1, len(images), len(COLUMNS)), dtype=np.int64)
    np.add.at(table[0], place, counts.table)
    bootstrap = Bootstrap(table)
    alone = len(images) == len(counts)
    if len(images) == 1:
        shares = [name for name, metric in METRICS.items() if metric.share_of is not None]
        return {name: bootstrap.interval(name, 0) for name in shares} if alone else {}
    return {
        metric: bootstrap.interval(metric, 0) if alone else percentile_interval(bootstrap.replicates[metric][:, 0])
        for metric in METRICS
    }


def percentile_interval(replicates: ArrayLike) -> Interval:
    """The middle 95 % of bootstrap replicates, shape ``[resamples]``."""
    low, high = np.quantile(np.asarray(replicates), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_p_value(differences: ArrayLike) -> float:
    """Two-sided p-value of no difference from paired bootstrap differences, shape ``[resamples]``.

    Twice the smaller share of resamples on one side of 0, itself included, with the observed data counted as one more,
    so that it is never 0 (Davison and Hinkley, 1997, section 4.2; Phipson and Smyth, 2010): 2,000 resamples give no
    less than 0.001.
    """
    values = np.asarray(differences)
    one_side = min(int(np.sum(values <= 0)), int(np.sum(values >= 0)))
    return min(1.0, 2 * (1 + one_side) / (1 + len(values)))
