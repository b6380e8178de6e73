"""Racing: when a trial may be stopped because another has beaten it beyond doubt.

All trials see the tune images in one random order. The truth that a race is about is what a trial would come to on
all N of them, so after n images only the N - n others are unknown. At each of a few looks fixed beforehand the trial
is compared with *members*, complete trials whose counts on all N images are known, and stopped if one of them
dominates it: CHAIR_S not above, F1 not below, on all N images.

**What is tested.** For a member with F1 f (as a fraction, over all N images) and image i, count against the trial ::

    c[i] = hallucinated[trial] - hallucinated[member]                                            each 0 or 1
    g[i] = f * (mentioned[trial] - mentioned[member]) - 2 * (correct[trial] - correct[member])   distinct categories

Over all N images, sum(c) > 0 says that the trial's CHAIR_S is above the member's. F1 is 2 sum(correct) /
(sum(mentioned) + sum(present)), a ratio of sums, but the member's is a known number, and "the trial's F1 is below f"
is the same as 2 sum(correct) < f (sum(mentioned) + sum(present)); the categories present are the same for both and the
member's own sums cancel, so it is the same as sum(g) > 0. That is how Fieller (1954, JRSS B 16) treats a ratio, and
here it is exact: no linearisation is left to doubt. Both differences are paired, so what makes an image hard for both
cancels.

**One test.** For x = c or g, with the first n images a sample drawn without replacement and the null hypothesis that
sum(x) over all N images is 0 or less, ::

    z = (sum(x) - u) / sqrt((1 - n / N) * (sum(x**2) + u**2))

over the n images, compared with the normal distribution. 1 - n / N is the correction for a finite population
(Cochran, 1977, Sampling Techniques, section 2.6). The squares are not centred, as in McNemar's test, whose statistic
this is for c: with few images that differ, a centred variance calls a handful that all point one way certain, and this
does not. u is an image that differs as much as any does, at least by one caption (1) or one correct category (2 - f),
added as if it had been seen and had pointed the other way. For c this is the continuity correction of McNemar's test
(Edwards, 1948, Psychometrika 13), in the spirit of counting the observed value among the resamples; it makes the test
conservative where few images differ. For c the chance of a false rejection can be counted out: it is below the level
for every N, n and number of differing images tried, for levels down to 0.0005. For g the normal distribution remains
an approximation. It is on the safe side for differences as captions have them; a trial that owes its F1 to rare images
on which it names several things more, and loses a little on all others, can look worse than it is while none of those
has come.

**Many tests, one error.** ``1 - confidence`` bounds the chance that a trial which no member dominates is ever stopped:

- over looks by Bonferroni: a look gets an equal share of it;
- over the two objectives by nothing: domination is claimed only if both tests reject, and if the trial is not dominated
  one of the two null hypotheses is true (intersection-union test; Berger, 1982, Technometrics 24);
- over members by order instead of by number. All claims "CHAIR_S above the member's" are about one unknown and known
  thresholds, so they are nested. They are tested from the lowest threshold, the weakest claim, upwards, and the first
  that fails ends the sequence; then only the first false claim can err, and any number of members costs one test's
  level (fixed sequence; Maurer, Hothorn and Lehmacher, 1995; Westfall and Krishen, 2001, J. Stat. Plan. Inference 99).
  F1 likewise from the highest down. With several members the two sequences may err about different ones, so each gets
  half of the look's share; with a single member both tests have all of it.

The members of a trial's race are fixed before its first image, so that their number changes from trial to trial but
never between the looks of one. What the bound takes for granted is that the order of the images has nothing to do with
the trial. Settings are chosen by what earlier trials did, and for raced ones that is their first images, so a trace of
the order reaches later settings; whether it matters is measured by simulation, not assumed.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtune.chair import COLUMNS
from kvtune.chair.metrics import ratio
from kvtune.statistics.confidence import RACE_CONFIDENCE

RACE_COLUMNS = ("hallucinated_captions", "correct", "mentioned", "present")
"""Counts of a caption that a race needs, in this order; names as in :data:`kvtune.chair.COLUMNS`."""

LOOKS = 9
"""Looks at a trial: after each tenth of the images but the last, if a tenth has as many images as one look needs."""

FEWEST_IMAGES = 20
"""Before the first look and between two."""


@dataclass(frozen=True)
class Race:
    """When to look at trials, and how much it takes to stop one.

    Parameters
    ----------
    images
        N, the images of a complete trial.
    confidence
        A trial that no member dominates goes through all looks with at least this chance; above 0 and below 1.
    looks
        Numbers of images after which to look, rising, each below ``images``; see :meth:`of`.
    """

    images: int
    confidence: float
    looks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, not {self.confidence}")
        if list(self.looks) != sorted(set(self.looks)) or not all(0 < look < self.images for look in self.looks):
            raise ValueError(f"looks must rise between 0 and {self.images}, not {self.looks}")

    @classmethod
    def of(cls, images: int, confidence: float = RACE_CONFIDENCE) -> "Race":
        """The race over so many images with the looks that kvtune takes; none where there are too few images."""
        block = max(FEWEST_IMAGES, math.ceil(images / (LOOKS + 1)))
        return cls(images, confidence, tuple(range(block, images, block)))

    def dominator(self, trial: ArrayLike, members: ArrayLike, n: int) -> int | None:
        """Index of a member that dominates one trial beyond doubt, judged by its first ``n`` images; None for none.

        See :meth:`dominators`.
        """
        found = int(self.dominators(np.asarray(trial)[None], members, n)[0])
        return None if found < 0 else found

    def dominators(self, trials: ArrayLike, members: ArrayLike, n: int) -> NDArray[np.int64]:
        """For each of several trials, the member that dominates it beyond doubt, judged by its first ``n`` images.

        Parameters
        ----------
        trials
            Shape ``[trials, n or more, len(RACE_COLUMNS)]``: counts by image in the order of the race; images after the
            first ``n`` are not looked at.
        members
            Shape ``[members, images, len(RACE_COLUMNS)]``: all images, in the same order.
        n
            One of ``looks``.

        Returns
        -------
        NDArray
            Shape ``[trials]``: index of the member whose domination is the clearest, or -1.
        """
        if n not in self.looks:
            raise ValueError(f"{n} images are not one of the looks {self.looks}")
        judged, known = np.asarray(trials, dtype=np.float64)[:, :n], np.asarray(members, dtype=np.float64)
        columns = len(RACE_COLUMNS)
        if known.ndim != 3 or known.shape[1:] != (self.images, columns) or judged.shape[1:] != (n, columns):
            raise ValueError(f"counts of {judged.shape} and {known.shape} are not of {n} of {self.images} images")
        if not len(known):
            return np.full(len(judged), -1)
        sums = known.sum(axis=1)
        f1 = ratio(2 * sums[:, 1], sums[:, 2] + sums[:, 3])
        # [trials, members, n]
        hallucinated, correct, mentioned, _ = np.moveaxis(judged[:, None] - known[None, :, :n], -1, 0)
        chair_z = self._z(hallucinated, np.ones(len(known)), n)
        f1_z = self._z(f1[:, None] * mentioned - 2 * correct, 2 - f1, n)
        critical = self.critical(len(known))
        dominated = _in_sequence(chair_z > critical, np.argsort(sums[:, 0], kind="stable"))
        dominated &= _in_sequence(f1_z > critical, np.argsort(-f1, kind="stable"))
        clearest = np.where(dominated, np.minimum(chair_z, f1_z), -np.inf)
        return np.where(dominated.any(axis=1), clearest.argmax(axis=1), -1)

    def critical(self, members: int) -> float:
        """What z must exceed against so many members."""
        level = (1 - self.confidence) / len(self.looks) / min(members, 2)
        return NormalDist().inv_cdf(1 - level)

    def _z(self, against: NDArray[np.float64], least: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        """The statistic of ``against``, shape ``[trials, members, n]``; ``least``, ``[members]``, is the smallest u."""
        unit = np.maximum(least, np.abs(against).max(axis=2))
        spread = (1 - n / self.images) * (np.square(against).sum(axis=2) + np.square(unit))
        return (against.sum(axis=2) - unit) / np.sqrt(spread)


def race_counts(table: ArrayLike) -> NDArray[np.int64]:
    """The columns of :attr:`kvtune.chair.CaptionCounts.table` that a race needs; ``[..., 8]`` to ``[..., 4]``."""
    return np.asarray(table)[..., [COLUMNS.index(name) for name in RACE_COLUMNS]]


def _in_sequence(rejected: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """What stays rejected when the columns are tested in this order and the first that is not ends the sequence."""
    kept = np.empty_like(rejected)
    kept[:, order] = np.logical_and.accumulate(rejected[:, order], axis=1)
    return kept
