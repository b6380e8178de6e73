"""Which implementation a device's paged attention and smoothing have: Triton kernels, or plain torch."""

from __future__ import annotations

import dataclasses
import logging
import textwrap
from collections.abc import Callable

import torch
from torch import Tensor

from kvtune.captioning import paged_attention, paged_smoothing
from kvtune.captioning.paged_attention import LANES, Layout, PagedAttend
from kvtune.captioning.pages import PAGE
from kvtune.methods.acting import Acting
from kvtune.methods.seen import Seen

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

    float64 is for proofs, in which they have no part.
    """
    if device.type != "cuda" or dtype == torch.float64:
        return PLAIN
    try:
        from kvtune.captioning import triton_attention, triton_smoothing, triton_tiles

        built = Kernels(triton_attention.attend, triton_smoothing.smooth, triton_tiles.attend_tiles)
        try_on_one_row(built, device, dtype, kv_heads, share, head_dim)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton's compiler fails with errors of its own, assertions and LLVM's among them
        reason = why_not_built(error)
        log.warning("attention in plain torch, several times slower, for the kernels cannot be built: %s", reason)
        log.debug("where a kernel's build failed", exc_info=True)
        return PLAIN
    return built


def why_not_built(error: BaseException) -> str:
    """In a line, why a kernel could not be built: Triton's own errors show the code first, and the fault below it."""
    while error.__cause__ is not None:  # a fault in a function that a kernel calls
        error = error.__cause__
    said = getattr(error, "error_message", None) or str(error)
    return textwrap.shorten(said, 300) or type(error).__name__


def try_on_one_row(
    kernels: Kernels, device: torch.device, dtype: torch.dtype, kv_heads: int, share: int, head_dim: int
) -> None:
    """Run kernels on a row with a page of text about a page of prompt.

    Steps of a grid take the same builds of Triton kernels, for which steps of 1 in tensors make a difference.
    """

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
    key, value = (torch.zeros(1, kv_heads, head_dim, dtype=dtype, device=device) for _ in range(2))
    keys, values = (torch.zeros(1, 3, kv_heads, PAGE, head_dim, dtype=dtype, device=device) for _ in range(2))
    kernels.attend(query, key, value, keys[0], values[0], layout, 1.0)
    index = members.flatten().long()
    nothing = torch.zeros(3, LANES, 2 * PAGE, dtype=torch.bool, device=device)
    acting = Acting((), Seen(0, index, nothing, index, index, query, 1.0))
    kernels.attend_tiles(query, keys[0], values[0], layout, 1.0, 0, [acting])
    factors = torch.full((1, 2), 0.5, device=device)[:, :1]
    kernels.smooth(keys, values, layout.table, layout.newest, factors, factors, 0)
