"""SPARC: visual tokens that gain attention are made to weigh more from then on."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kvtune.methods.decoder import Decoder
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import layer, number
from kvtune.methods.row_state import ActsFrom, RowState, StepEnd, fitted, moved, wide, widened

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.facts import PromptFacts
    from kvtune.methods.seen import Seen, SeenPositions

_CODE = "code of mingi000508/SPARC"


@dataclasses.dataclass(frozen=True)
class SPARC(Method):
    """Selective progressive attention recalibration (Jung et al. 2025, arXiv 2502.01419).

    The mean over heads a of the weights on visual tokens is watched in one layer. A token whose attention exceeds its
    running mean ā by ``tau`` of it, (a - ā) / ā >= tau, weighs ``alpha`` times as much from the next token on, in all
    layers and for the rest of the caption, in the sum over values alone: the code multiplies cached values, which is
    the same. ā begins with the last prompt token's a and follows ā <- (1 - beta) a + beta ā.

    Parameters
    ----------
    alpha
        Factor, at least 0; 1.1 in the code.
    beta
        Share of the old mean that stays, 0 to 1; 0.1 in the code.
    tau
        Relative gain in attention that selects a token; 1.5 in the code for LLaVA-1.5, 4 for LLaVA-NeXT.
    layer
        The layer that is watched, 0-based; 20 of 32 in the code.
    """

    name: ClassVar[str] = "sparc"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = (
        Published("llava-1.5", {"alpha": 1.1, "beta": 0.1, "tau": 1.5, "layer": 20}, _CODE),
        Published("llava-next", {"alpha": 1.1, "beta": 0.1, "tau": 4.0, "layer": 20}, _CODE),
    )

    alpha: float = number(1.1, low=0, search=(1.0, 1.5, 0.05))
    beta: float = number(0.1, low=0, high=1, search=(0.0, 0.9, 0.1))
    tau: float = number(1.5, search=(0.5, 5.0, 0.25))
    layer: int = layer(20)

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """Mean, gain and the next gain, float32 or float64."""
        return 3 * wide(prompt_tokens) * decoder.number_bytes

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> SPARCRows:
        return SPARCRows(cls, n_rows, decoder, device)


class SPARCRows(RowState[SPARC]):
    """Running mean and gain of each prompt position, [rows, positions]; of visual ones alone they mean something."""

    def __init__(self, kind: type[SPARC], n_rows: int, decoder: Decoder, device: Any) -> None:
        import torch

        super().__init__(kind, n_rows, decoder, device)
        self._mean = torch.zeros(n_rows, 0, device=device)
        self._gain = torch.ones(n_rows, 0, device=device)
        self._next_gain = torch.ones(n_rows, 0, device=device)
        self._watched: frozenset[int] = frozenset()
        """Layers that any row has ever watched."""

    def set_rows(self, rows: Sequence[int], methods: Sequence[SPARC | None]) -> Tensor:
        self._watched |= {method.layer for method in methods if method}
        return super().set_rows(rows, methods)

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        longest = max(len(prompt.visual) for prompt in prompts)
        self._mean = widened(self._mean, longest)
        self._gain, self._next_gain = widened(self._gain, longest), widened(self._next_gain, longest)
        self._mean[index] = 0.0
        self._gain[index] = self._next_gain[index] = 1.0

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        """In the layer that is watched, see who has gained attention; the weights stay."""
        if seen.layer not in self._watched:
            return weights
        a = weights[..., : seen.prompt].mean(1)
        if self._mean.dtype != a.dtype:
            self._mean, self._gain, self._next_gain = (
                tensor.to(a.dtype) for tensor in (self._mean, self._gain, self._next_gain)
            )
        width = min(seen.prompt, self._mean.shape[1])
        where = (seen.of_newest(seen.rows), slice(width))
        a, visual = seen.of_newest(a[:, :width]), seen.of_newest(seen.visual[:, :width])
        mean, gain, next_gain = self._mean[where], self._gain[where], self._next_gain[where]
        alpha, beta, tau, layer = (
            seen.of_newest(self.value(seen, name, weights))[:, 0] for name in ("alpha", "beta", "tau", "layer")
        )
        here = (layer == seen.layer) & seen.of_newest(self.acting(seen))[:, 0]
        begins = seen.of_newest(seen.to_come)[:, None] >= 0
        selected = ((a - mean) / mean >= tau) & visual & here & ~begins
        follows = (1 - beta) * a + beta * mean
        self._mean[where] = a.where(begins, follows).where(here, mean)
        self._next_gain[where] = (gain * alpha).where(selected, next_gain)
        return weights

    def change_sum(self, seen: Seen, weights: Tensor) -> Tensor:
        def gains() -> Tensor:
            gain = fitted(seen.of_rows(self._gain)[:, None].to(weights.dtype), seen.prompt)
            return gain.where(self.acting(seen) & seen.visual[:, None], gain.new_ones(()))

        # It acts in all layers alike, and gains change at the end of a step alone.
        weights[..., : seen.prompt] *= self.once(seen, "gains", gains)
        return weights

    def follow(self, other: SPARCRows, seen: Sequence[tuple[SeenPositions, SeenPositions]]) -> None:
        self._next_gain = other._next_gain.to(self._next_gain.device)
        self._gain = self._gain.to(self._next_gain.dtype)

    def end_step(self, step: StepEnd) -> None:
        self._gain.copy_(self._next_gain)

    def captured_with(self) -> Hashable:
        tensors = (self._mean, self._gain, self._next_gain)
        return super().captured_with(), self._watched, *(tensor.data_ptr() for tensor in tensors), self._mean.shape

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._mean, self._gain, self._next_gain = (
            moved(tensor, index) for tensor in (self._mean, self._gain, self._next_gain)
        )
