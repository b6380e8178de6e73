"""A KV cache that takes a method's state along when its rows change places."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from kvtune.errors import RequestError
from kvtune.methods.row_methods import RowMethods


class Followed:
    """Makes a cache take a method's state along when its rows change places.

    A mixin put in front of the cache's own class, because a copy of the cache must take a copy of the state.
    """

    kvtune_session: object
    """The attachment that it belongs to."""

    kvtune_state: RowMethods
    kvtune_cropped: bool

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._reorder_state(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._reorder_state(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        rows = torch.arange(self.layers[0].keys.shape[0] // repeats)  # type: ignore[attr-defined]
        self._reorder_state(rows.repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)  # type: ignore[misc]
        self.kvtune_cropped |= tokens_to_remove != 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.kvtune_session)] = self.kvtune_session
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return copied

    def _reorder_state(self, index: Tensor) -> None:
        self.kvtune_state.move(index.cpu().numpy(), index)


@functools.cache
def _followed(kind: Any) -> Any:
    return type(kind.__name__, (Followed, kind), {})


def follow(cache: Any, session: object, state: RowMethods) -> None:
    """Make a cache take ``state`` along, which belongs to the attachment ``session``."""
    if not isinstance(cache, Followed):
        kind: Any = type(cache)
        cache.__class__ = _followed(kind)
    cache.kvtune_session, cache.kvtune_state, cache.kvtune_cropped = session, state, False


def check_cache(cache: Any) -> None:
    """Refuse caches whose tensors cannot be smoothed where they lie."""
    kinds: set[Any] = {type(layer) for layer in getattr(cache, "layers", ())}
    kinds.add(getattr(cache, "layer_class_to_replicate", None) or DynamicLayer)
    known = {DynamicLayer, StaticLayer, DynamicSlidingWindowLayer}
    if not isinstance(cache, Cache) or cache.offloading or not kinds <= known:
        raise RequestError(
            f"the method cannot smooth the cache {type(cache).__name__}: use a plain dynamic or static cache, on the "
            "device, without quantization or offloading, and a dynamic one for layers with a sliding window"
        )
    if any(isinstance(layer, DynamicSlidingWindowLayer) and layer.sliding_window < 3 for layer in cache.layers):
        raise RequestError("the method needs the token before the newest, which a window of 2 tokens has dropped")


def newest(layer: Any, length: int) -> int:
    """Where in a cache's layer the newest of ``length`` tokens is; a sliding window has dropped the oldest."""
    held: int = layer.keys.shape[2]
    return min(length, held) - 1
