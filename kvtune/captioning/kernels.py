"""Which implementation a device's paged attention and smoothing have: Triton kernels, or plain torch."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from kvtune.captioning import paged_attention, paged_smoothing
from kvtune.captioning.paged_attention import LANES, Layout, PagedAttend
from kvtune.captioning.pages import PAGE
from kvtune.kernel_builds import why_not_built
from kvtune.methods.acting import Acting
from kvtune.methods.seen import SeenPositions
from kvtune.models.misfit import is_out_of_memory

Smooth = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int], None]
"""The signature of :func:`kvtune.captioning.paged_smoothing.smooth`."""

AttendTiles = Callable[..., tuple[Tensor, Tensor]]
"""The signature of :func:`kvtune.captioning.paged_attention.attend_tiles`."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Attention over pages, smoothing in pages, and attention of the rows of some tiles as methods have it."""

    attend: PagedAttend
    smooth: Smooth
    attend_tiles: AttendTiles = paged_attention.attend_tiles


PLAIN = Kernels(paged_attention.attend, paged_smoothing.smooth)
"""Plain torch, for any device and type."""


def kernels_for(device: torch.device, dtype: torch.dtype, kv_heads: int, share: int, head_dim: int) -> Kernels:
    """The kernels for a model's shapes, tried on one row; plain torch, with a warning, where they cannot be built.

    Those for methods that change attention are built when the first of these acts. float64 is for proofs, in which
    kernels have no part.
    """
    if device.type != "cuda" or dtype == torch.float64:
        return PLAIN
    shapes = device, dtype, kv_heads, share, head_dim

    def attention() -> Kernels:
        from kvtune.captioning import triton_attention, triton_smoothing

        built = Kernels(triton_attention.attend, triton_smoothing.smooth, lambda *given: tiles()(*given))
        OneRow.of(*shapes).try_attention(built)
        return built

    @functools.cache
    def tiles() -> AttendTiles:
        return built_or(PLAIN.attend_tiles, "methods' attention", of_tiles)

    def of_tiles() -> AttendTiles:
        from kvtune.captioning import triton_tiles

        OneRow.of(*shapes).try_tiles(triton_tiles.attend_tiles)
        return triton_tiles.attend_tiles

    return built_or(PLAIN, "attention", attention)


T = TypeVar("T")


def built_or(plain: T, what: str, build: Callable[[], T]) -> T:
    """What ``build`` gives, or where that fails ``plain``, with a warning."""
    try:
        return build()
    except Exception as error:  # Triton's compiler fails with errors of its own, assertions and LLVM's among them
        if is_out_of_memory(error):
            raise
        reason = why_not_built(error)
        log.warning("%s in plain torch, several times slower, for the kernels cannot be built: %s", what, reason)
        log.debug("where a kernel's build failed", exc_info=True)
        return plain


@dataclasses.dataclass(frozen=True)
class OneRow:
    """A row with a page of text about a page of prompt, to try kernels on.

    Steps of a grid take the same builds of Triton kernels, for which steps of 1 in tensors make a difference.
    """

    query: Tensor
    new: Tensor
    cache: Tensor
    layout: Layout

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype, kv_heads: int, share: int, head_dim: int) -> OneRow:
        def numbers(*shape: int, of: int = 0) -> Tensor:
            return torch.full(shape, of, dtype=torch.int32, device=device)

        members = numbers(1, LANES, of=-1)
        members[0, 0] = 0
        layout = Layout(
            newest=numbers(1, of=1),
            table=numbers(1, 2, of=1),
            tiles=members,
            tile_images=numbers(1),
            tile_lengths=numbers(1, of=1),
            lanes_of_rows=numbers(1),
            prompt_table=numbers(1, 2, of=2),
        )
        query = torch.zeros(1, kv_heads, share, head_dim, dtype=dtype, device=device)
        new = torch.zeros(1, kv_heads, head_dim, dtype=dtype, device=device)
        cache = torch.zeros(1, 3, kv_heads, PAGE, head_dim, dtype=dtype, device=device)
        return cls(query, new, cache, layout)

    def try_attention(self, kernels: Kernels) -> None:
        """Attention and smoothing."""
        layout = self.layout
        kernels.attend(self.query, self.new, self.new, self.cache[0], self.cache[0], layout, 1.0)
        factors = torch.full((1, 2), 0.5, device=self.cache.device)[:, :1]
        kernels.smooth(self.cache, self.cache, layout.table, layout.newest, factors, factors, 0)

    def try_tiles(self, attend_tiles: AttendTiles) -> None:
        """Attention as methods have it, of which there are none."""
        attend_tiles(self.query, self.cache[0], self.cache[0], self.layout, 1.0, 0, [nobody(self.query, self.layout)])


def nobody(query: Tensor, layout: Layout) -> Acting:
    """No methods on all lanes of a layout."""
    lanes = layout.tiles.flatten().long()
    classes = torch.zeros(3, len(lanes), layout.prompt_table.shape[1] * PAGE, dtype=torch.bool, device=query.device)
    return Acting((), SeenPositions(lanes, classes, lanes, lanes))
