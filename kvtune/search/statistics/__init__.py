"""How sure a study's numbers are: intervals, paired tests, adjusted p-values, hypervolume. NumPy alone."""

from kvtune.search.statistics.bootstrap import (
    CONFIDENCE,
    METRICS,
    RESAMPLES,
    SEED,
    Bootstrap,
    Interval,
    bootstrap_p_value,
    percentile_interval,
    resampling_weights,
    score_intervals,
)
from kvtune.search.statistics.hypervolume import HypervolumeEstimate, hypervolume_estimate, hypervolumes
from kvtune.search.statistics.paired import holm, mcnemar
from kvtune.search.statistics.wilson import wilson_interval

__all__ = [
    "CONFIDENCE",
    "METRICS",
    "RESAMPLES",
    "SEED",
    "Bootstrap",
    "HypervolumeEstimate",
    "Interval",
    "bootstrap_p_value",
    "holm",
    "hypervolume_estimate",
    "hypervolumes",
    "mcnemar",
    "percentile_interval",
    "resampling_weights",
    "score_intervals",
    "wilson_interval",
]
