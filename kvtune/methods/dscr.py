"""DSCR: keys of the image are mixed with those of tokens near to them, in the picture and in depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kvtune.errors import RequestError
from kvtune.methods.facts import AnyFact, Depth, PromptFacts
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import choice, end_layer, listed, number, start_layer
from kvtune.methods.row_state import ActsFrom, RowState, fitted, moved, wide, widened
from kvtune.text import quoted

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.decoder import Decoder
    from kvtune.methods.seen import Seen

NO_DEPTH = "none"

_SOURCE = "a published summary of the paper, which leaves units open"


@dataclasses.dataclass(frozen=True)
class DSCR(Method):
    """Depth- and space-aware calibration of the visual cache.

    A visual token's score becomes the mean of all others', weighted by nearness: ``s'_j = sum_i w_ij s_i``, with
    ``w_ij = f_d^alpha + f_s^beta``, 0 on the diagonal and columns summing to 1; f_d and f_s are Gaussians of the
    difference in depth and of the distance in the picture. That is what mixing the cached keys comes to. Depth is 0 to
    1 between the nearest and the farthest of the picture, a token's the mean of its part; places are 0 to 1 across and
    down. From the last prompt token on. Tokens without a place (line ends) keep their score and are not mixed in.

    Parameters
    ----------
    sigma_d, sigma_s
        Widths of the Gaussians, above 0; 0.6.
    alpha, beta
        Exponents, at least 0; 0.6 and 0.8.
    start_layer, end_layer
        Layers ``start_layer <= l < end_layer``, 0-based; 10 to 40 of 40, from a quarter on elsewhere.
    target
        ``"k"`` mixes keys alone, ``"kv"`` values too: ``sum_j a_j w_ij`` in the sum over values.
    depth
        Where depth comes from: a Hub id or folder of a transformers depth estimator, a folder of maps named as the
        images, ``"scenes"`` for the demo's own, or ``"none"``, which leaves the term of depth out.
    """

    name: ClassVar[str] = "dscr"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "llava-1.5-13b",
            {"sigma_d": 0.6, "sigma_s": 0.6, "alpha": 0.6, "beta": 0.8, "start_layer": 10, "end_layer": 40},
            _SOURCE,
        ),
    )

    sigma_d: float = number(0.6, low=1e-6, search=(0.05, 1.0, 0.05))
    sigma_s: float = number(0.6, low=1e-6, search=(0.05, 1.0, 0.05))
    alpha: float = number(0.6, low=0)
    beta: float = number(0.8, low=0)
    start_layer: int = start_layer(8)
    end_layer: int = end_layer(32)
    target: str = choice("k", ("k", "kv"))
    depth: str = listed(NO_DEPTH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.depth, str) or not self.depth:
            raise RequestError(
                f"depth must be a depth estimator, a folder of maps, scenes or none, not {quoted(self.depth)}"
            )

    def check_model(self, decoder: Decoder) -> None:
        super().check_model(decoder)
        if not decoder.has_places:
            raise RequestError("dscr weighs visual tokens by their places in the picture, and this model's have none")

    @property
    def facts(self) -> tuple[AnyFact, ...]:
        return () if self.depth == NO_DEPTH else (Depth(self.depth),)

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """The matrix by which prompt tokens are mixed, and a copy of it in a step."""
        return 2 * wide(prompt_tokens) ** 2 * decoder.number_bytes

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> DSCRRows:
        return DSCRRows(cls, n_rows, decoder, device)


class DSCRRows(RowState[DSCR]):
    """How scores of prompt tokens are mixed, [rows, prompt tokens, prompt tokens], each column the new one's."""

    def __init__(self, kind: type[DSCR], n_rows: int, decoder: Decoder, device: Any) -> None:
        import torch

        super().__init__(kind, n_rows, decoder, device)
        dtype = torch.float64 if decoder.number_bytes == 8 else torch.float32
        self._mixing = torch.zeros(n_rows, 0, 0, dtype=dtype, device=device)
        self._methods: dict[int, DSCR] = {}
        self._mixes_values = False
        """Whether any row ever did."""

    def set_rows(self, rows: Sequence[int], methods: Sequence[DSCR | None]) -> Tensor:
        self._mixes_values |= any(method and method.target == "kv" for method in methods)
        self._methods.update({row: method for row, method in zip(rows, methods, strict=True) if method})
        return super().set_rows(rows, methods)

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        longest = max(len(prompt.visual) for prompt in prompts)
        self._mixing = widened(widened(self._mixing, longest).transpose(1, 2), longest).transpose(1, 2).contiguous()
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            one, method = index[place : place + 1], self._methods.pop(row)
            length = len(prompt.visual)
            if prompt.places is None:
                raise RequestError("dscr weighs visual tokens by their place in the picture, and these have none")
            depth = None if method.depth == NO_DEPTH else prompt.noted[Depth(method.depth)]
            weights = nearness(method, prompt.places.to(self._mixing.dtype), depth)
            # Of each prompt token the number among the visual ones; others weigh themselves alone.
            number = (prompt.visual.cumsum(0) - 1).clamp(min=0)
            both = prompt.visual[:, None] & prompt.visual
            whole = weights[number][:, number].where(both, self._mixing.new_ones(length).diag())
            self._mixing[one, :length, :length] = whole

    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        prompt = scores[..., : seen.prompt]
        mixed = prompt @ self._mixing_of(seen, scores)
        prompt.copy_(mixed.where(self._where(seen), prompt))
        return scores

    def change_sum(self, seen: Seen, weights: Tensor) -> Tensor:
        if not self._mixes_values:
            return weights
        prompt = weights[..., : seen.prompt]
        mixed = prompt @ self._mixing_of(seen, weights).transpose(1, 2)
        on_values = self.value(seen, "target", weights) == self._choices["target"].index("kv")
        prompt.copy_(mixed.where(self._where(seen) & on_values, prompt))
        return weights

    def _where(self, seen: Seen) -> Tensor:
        """[n, 1, prompt positions] bool: what is mixed in this layer."""
        return self.once(seen, "where", lambda: self._acts(seen) & seen.visual[:, None])[seen.layer]

    def _mixing_of(self, seen: Seen, like: Tensor) -> Tensor:
        """[n, prompt positions, prompt positions]."""

        def mixing() -> Tensor:
            of_rows = seen.of_rows(self._mixing).to(like.dtype)
            # Side by side, or each product would copy it.
            return fitted(fitted(of_rows, seen.prompt).transpose(1, 2), seen.prompt).transpose(1, 2).contiguous()

        return self.once(seen, "mixing", mixing)

    def captured_with(self) -> Hashable:
        return super().captured_with(), self._mixes_values, self._mixing.data_ptr(), self._mixing.shape

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._mixing = moved(self._mixing, index)


def nearness(method: DSCR, places: Tensor, depth: Tensor | None) -> Tensor:
    """How much of token i goes into token j, [visual tokens, visual tokens]; columns sum to 1.

    Parameters
    ----------
    places
        [visual tokens, 2], NaN for one that has none.
    depth
        [visual tokens], 0 to 1; None leaves it out.
    """
    placed = ~places.isnan().any(-1)
    apart = (places[:, None] - places).square().sum(-1)
    f_s = (apart / (-2 * method.sigma_s**2)).exp()
    w = f_s**method.beta
    if depth is not None:
        behind = (depth[:, None] - depth).to(w.dtype).square()
        f_d = (behind / (-2 * method.sigma_d**2)).exp()
        w = w + f_d**method.alpha
    own = w.new_ones(len(places)).diag()
    w = w.where(placed[:, None] & placed & (own == 0), w.new_zeros(()))
    total = w.sum(0, keepdim=True)
    # One that has no place, or nobody near, keeps its own.
    return (w / total).where(total > 0, own)
