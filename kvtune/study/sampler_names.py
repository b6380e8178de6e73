"""The names of the samplers, as a study's fingerprint has them; light, for the command line declares them."""

from typing import Literal, get_args

SamplerName = Literal["tpe", "nsga2", "gp", "random", "grid"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
