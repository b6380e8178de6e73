"""The bootstrap of a whole study is a matter of a moment."""

import time

import numpy as np

from kvtune.chair import COLUMNS, METRICS
from kvtune.statistics.bootstrap import RESAMPLES, Bootstrap
from kvtune.statistics.hypervolume import hypervolume_estimate


def test_2000_resamples_of_50_trials_by_500_images() -> None:
    assert RESAMPLES == 2000
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 9, (50, 500, len(COLUMNS)))
    counts[:, :, 0], counts[:, :, 1] = 1, draw.integers(0, 2, (50, 500))
    begun = time.process_time()
    found = Bootstrap(counts)
    for trial in range(50):
        found.intervals(trial)
        for metric in METRICS:
            found.difference(metric, trial, 0)
            found.p_value(metric, trial, 0)
    hypervolume_estimate(1.0, found.replicates["chair_s"], found.replicates["f1"], (50.0, 60.0))
    assert time.process_time() - begun < 5
