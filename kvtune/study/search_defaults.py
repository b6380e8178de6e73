"""What a search does when nothing else is said, and the names of the samplers; light, for the command line declares it.

How sure it races: :data:`kvtune.statistics.confidence.RACE_CONFIDENCE`.
"""

from typing import Literal, get_args

SamplerName = Literal["tpe", "nsga2", "gp", "random", "grid"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)

METHOD = "kvsmooth"
SAMPLER: SamplerName = "tpe"
TRIALS = 50
PARALLEL_TRIALS = 8
"""Trials in a round: enough to fill a batch that shares each image's prefill, few enough that a search of 50 trials
looks at what it has seen six times."""

MAX_NEW_TOKENS = 512
IMAGES = 500
DEMO_IMAGES = 100
"""Tune and held-out images alike; of the demo enough to see the trade-off, few enough for two CPU cores."""
