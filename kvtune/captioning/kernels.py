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
from kvtune.device_errors import is_lost, is_out_of_memory
from kvtune.kernel_builds import why_not_built
from kvtune.methods.acting import Acting
from kvtune.methods.seen import SeenPositions

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


MOST_ERROR = {torch.bfloat16: 1.5e-2, torch.float16: 2e-3, torch.float32: 1e-5}
"""Of the norm of a kernel's result, from that of the same numbers in float64."""

PLAIN = Kernels(paged_attention.attend, paged_smoothing.smooth)
"""Plain torch, for any device and type."""


def kernels_for(device: torch.device, dtype: torch.dtype, kv_heads: int, share: int, head_dim: int) -> Kernels:
    """The kernels for a model's shapes, tried on one row; plain torch, with a warning, where they cannot be built
    or are wrong.

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


class WrongNumbersError(Exception):
    """A kernel computes on a device what plain torch does not."""


_SLOWER = "in plain torch, several times slower, for the kernels"


def built_or(plain: T, what: str, build: Callable[[], T], otherwise: str = _SLOWER) -> T:
    """What ``build`` gives, or where that fails ``plain``, with a warning of how ``what`` is done ``otherwise``."""
    try:
        return build()
    except Exception as error:  # Triton's compiler fails with errors of its own, assertions and LLVM's among them
        if is_out_of_memory(error) or is_lost(error):
            raise
        why = str(error) if isinstance(error, WrongNumbersError) else f"cannot be built: {why_not_built(error)}"
        log.warning("%s %s %s", what, otherwise, why)
        log.debug("where a kernel's build failed", exc_info=True)
        return plain


@dataclasses.dataclass(frozen=True)
class OneRow:
    """A row with two pages of text, and some of a third, about as much of a prompt, to try kernels on.

    Steps of a grid take the same builds of Triton kernels, for which steps of 1 in tensors make a difference.

    Attributes
    ----------
    new
        The new token's key and value, [2, 1, kv_heads, head_dim].
    cache
        Keys and values, [2, layers, pages, kv_heads, PAGE, head_dim].
    """

    query: Tensor
    new: Tensor
    cache: Tensor
    layout: Layout

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype, kv_heads: int, share: int, head_dim: int) -> OneRow:
        random = torch.Generator().manual_seed(0)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, device="cpu", dtype=torch.float32).to(device, dtype)

        def whole(*rows: list[int]) -> Tensor:
            return torch.tensor(rows, dtype=torch.int32, device=device)

        layout = Layout(
            newest=whole([2 * PAGE + 3])[0],
            table=whole([1, 3, 5]),
            tiles=whole([0, *[-1] * (LANES - 1)]),
            tile_images=whole([0])[0],
            tile_lengths=whole([2 * PAGE + 7])[0],
            lanes_of_rows=whole([0])[0],
            prompt_table=whole([6, 4, 2]),
        )
        query = numbers(1, kv_heads, share, head_dim)
        return cls(query, numbers(2, 1, kv_heads, head_dim), numbers(2, 1, 7, kv_heads, PAGE, head_dim), layout)

    def try_attention(self, kernels: Kernels) -> None:
        """Attention and smoothing; WrongNumbersError if they are not those of plain torch in float64."""
        exact = self._exact
        for name, got, right in zip(("outputs", "entropies"), self._attend(kernels), exact._attend(PLAIN), strict=True):
            self._compare(name, got, right)
        for one, by in ((self, kernels), (exact, PLAIN)):
            factors = torch.full((1, 2), 0.5, device=one.cache.device)[:, :1]
            keys, values = one.cache
            by.smooth(keys, values, one.layout.table, one.layout.newest, factors, factors, 0)
        self._compare("smoothed keys and values", self.cache[:, :, 1:], exact.cache[:, :, 1:])

    def try_tiles(self, attend_tiles: AttendTiles) -> None:
        """Attention as methods have it, of which there are none; WrongNumbersError as above."""
        self._compare("outputs", self._attend_tiles(attend_tiles), self._exact._attend_tiles(PLAIN.attend_tiles))

    @property
    def _exact(self) -> OneRow:
        return OneRow(self.query.double(), self.new.double(), self.cache.double(), self.layout)

    @property
    def _scaling(self) -> float:
        return float(self.query.shape[-1] ** -0.5)

    def _attend(self, kernels: Kernels) -> tuple[Tensor, Tensor]:
        (key, value), (keys, values) = self.new, self.cache[:, 0]
        output, entropy = kernels.attend(self.query, key, value, keys, values, self.layout, self._scaling)
        return output, entropy.mean(-1)

    def _attend_tiles(self, attend_tiles: AttendTiles) -> Tensor:
        acting = [nobody(self.query, self.layout)]
        return attend_tiles(self.query, *self.cache[:, 0], self.layout, self._scaling, 0, acting)[0][0]

    def _compare(self, what: str, got: Tensor, right: Tensor) -> None:
        error = relative_error(got, right)
        if not error <= MOST_ERROR[self.query.dtype]:  # NaN is not
            kind = str(self.query.dtype).removeprefix("torch.")
            raise WrongNumbersError(f"are wrong here: {what} in {kind} are off by {error:.1g} of their norm")


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Distance in the Euclidean norm over the norm of what is expected."""
    return float((got.double() - expected).norm() / expected.norm())


def nobody(query: Tensor, layout: Layout) -> Acting:
    """No methods on all lanes of a layout."""
    lanes = layout.tiles.flatten().long()
    classes = torch.zeros(3, len(lanes), layout.prompt_table.shape[1] * PAGE, dtype=torch.bool, device=query.device)
    return Acting((), SeenPositions(lanes, classes, lanes, lanes))
