"""What a method may know of a model."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a method may know of the model: its stack of layers, and the projection to the vocabulary."""

    n_layers: int
    n_heads: int
    module: Any
    head: Any
    has_places: bool = False
    """Whether it is known where in the picture the model's visual tokens are."""
