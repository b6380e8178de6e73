"""What a method may know of a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvtune.hf import HeadSizes


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a method may know of the model: its stack of layers, and the projection to the vocabulary."""

    n_layers: int
    n_heads: int
    module: Any
    head: Any
    has_places: bool = False
    """Whether it is known where in the picture the model's visual tokens are."""
    of_card: range | None = None
    """The layers on one card, for a state that is there; None for all of them."""

    @property
    def layers_here(self) -> range:
        """The layers that a state is about."""
        return range(self.n_layers) if self.of_card is None else self.of_card

    @property
    def head_dim(self) -> int:
        """Numbers of a head's query, key or value."""
        return self._sizes.head_dim

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self._sizes.kv_heads

    @property
    def _sizes(self) -> HeadSizes:
        from kvtune.hf import head_sizes

        return head_sizes(self.module.config)

    @property
    def number_bytes(self) -> int:
        """Bytes of a score or weight of attention: of float32 at least."""
        return max(4, int(self.module.dtype.itemsize))
