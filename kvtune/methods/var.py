"""VAR: attention that sinks take is given to the image's other tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from kvtune.errors import RequestError
from kvtune.methods.facts import Fact, PromptFacts
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import is_index, listed, number
from kvtune.methods.row_state import ActsFrom, RowState, fitted, moved, wide, widened
from kvtune.text import quoted

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.decoder import Decoder
    from kvtune.methods.seen import Seen

FIRST_LAYER = 2
"""Layers below are left alone, in the code of the authors."""

LEAST_ON_IMAGE = 0.2
"""Attention on visual tokens below which a head is left alone."""

EPSILON = 1e-6
"""Of the normalisation, and what is added to each visual weight under the share of sinks."""

_CODE = "code of seilk/VisAttnSink"


@dataclasses.dataclass(frozen=True)
class VAR(Method):
    """Visual attention redistribution ("See What You Are Told", Kang et al. 2025, arXiv 2503.03321).

    Sinks of a layer are prompt tokens whose input to the layer, RMS-normalised, exceeds ``tau`` in absolute value in
    one of ``sink_dims``. In a head whose attention weights on visual tokens sum to at least 0.2, at most a share
    ``rho`` of it on visual sinks, all sinks' weights are multiplied by ``p``, and what that frees goes to the visual
    tokens that are no sinks, in proportion to theirs; where all are sinks, the head is left alone. Layers from 2 on
    that have a visual sink, and every token after the image, as in the authors' code; but sinks are those of the plain
    prompt, while the code finds them in a prompt that is changed already, where text after the image may have others.

    Parameters
    ----------
    tau
        How large a normalised input must be, above 0; 20 in the code.
    rho
        Largest share of visual attention on sinks of a head that is changed, 0 to 1; 0.5 in the code.
    p
        What sinks keep, 0 to 1; 0.6 in the code.
    sink_dims
        Dimensions of the hidden state, 0-based: 1415 and 2533 in the code for LLaVA-1.5-7B, 2100 and 4743 for the 13B.
        ``"auto"`` takes the two in which the first token's normalised inputs are largest, in the mean over layers 2 to
        the last.
    """

    name: ClassVar[str] = "var"
    acts_from: ClassVar[ActsFrom] = "after_image"
    published: ClassVar[tuple[Published, ...]] = (
        Published("llava-1.5", {"tau": 20.0, "rho": 0.5, "p": 0.6, "sink_dims": [1415, 2533]}, _CODE),
        Published("llava-1.5-13b", {"tau": 20.0, "rho": 0.5, "p": 0.6, "sink_dims": [2100, 4743]}, _CODE),
    )

    tau: float = number(20.0, low=0, search=(5.0, 50.0, 5.0))
    rho: float = number(0.5, low=0, high=1, search=(0.0, 1.0, 0.1))
    p: float = number(0.6, low=0, high=1, search=(0.0, 1.0, 0.1))
    sink_dims: tuple[int, ...] | str = listed("auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sink_dims == "auto":
            return
        is_list = isinstance(self.sink_dims, Sequence) and not isinstance(self.sink_dims, str) and self.sink_dims
        if not is_list or not all(map(is_index, self.sink_dims)):
            raise RequestError(f"sink_dims must be auto or a list of whole numbers, not {quoted(self.sink_dims)}")
        object.__setattr__(self, "sink_dims", tuple(self.sink_dims))

    def parameters(self) -> dict[str, Any]:
        dims = self.sink_dims
        return super().parameters() | {"sink_dims": dims if isinstance(dims, str) else list(dims)}

    def check_model(self, decoder: Decoder) -> None:
        super().check_model(decoder)
        width = decoder.module.config.hidden_size
        if self.sink_dims != "auto" and max(self.sink_dims) >= width:
            raise RequestError(f"sink_dims has {max(self.sink_dims)}, but the model's hidden state has {width} numbers")

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (SinkSizes(self.sink_dims),)

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """Sinks of each layer, and three masks of them in a step."""
        return decoder.n_layers * wide(prompt_tokens) * (1 + 3 * decoder.number_bytes)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> VARRows:
        return VARRows(cls, n_rows, decoder, device)


@dataclasses.dataclass(frozen=True)
class SinkSizes(Fact):
    """How large each prompt token's RMS-normalised layer inputs are in some dimensions, [layers, prompt tokens]."""

    dims: tuple[int, ...] | str

    def watch(self, decoder: Decoder, noted: list[Tensor]) -> Sequence[Any]:
        dims = _dims_of.get(decoder.module) if self.dims == "auto" else self.dims

        def keep(layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            noted.append(hidden.clone() if dims is None else _sizes(hidden, dims))

        return [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in decoder.module.layers]

    def of_row(self, decoder: Decoder, noted: list[Tensor], row: int, begin: int, visual: Tensor) -> Tensor:
        import torch

        # Of each layer the sizes, [tokens], or its input, [tokens, width], where the dimensions were not known yet.
        own = [one[row, -len(visual) :].to(visual.device) for one in noted]
        if own[0].ndim == 2:
            if decoder.module not in _dims_of:
                largest = torch.stack([_normed(one[begin]).abs() for one in own[FIRST_LAYER:]]).mean(0).topk(2).indices
                _dims_of[decoder.module] = tuple(sorted(largest.tolist()))
            own = [_sizes(one, _dims_of[decoder.module]) for one in own]
        return torch.stack(own)


def _normed(hidden: Tensor) -> Tensor:
    """RMS-normalised over the last axis, in float32 at least: squares of what sinks have are beyond float16."""
    import torch

    exact = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return exact * (exact.square().mean(-1, keepdim=True) + EPSILON).rsqrt()


def _sizes(hidden: Tensor, dims: Iterable[Any]) -> Tensor:
    """The largest of some dimensions of what is normalised, taken one by one: a list of them would be sent, and waited
    for."""
    import torch

    normed = _normed(hidden)
    return torch.stack([normed[..., one] for one in dims], dim=-1).abs().amax(-1)


_dims_of: WeakKeyDictionary[Any, tuple[int, ...]] = WeakKeyDictionary()
"""The two dimensions that ``auto`` takes, which are the same for every prompt: its first token sees nothing else."""


class VARRows(RowState[VAR]):
    """Which prompt tokens are sinks, [layers, rows, prompt tokens], and how many each row's prompt has."""

    def __init__(self, kind: type[VAR], n_rows: int, decoder: Decoder, device: Any) -> None:
        super().__init__(kind, n_rows, decoder, device)
        self._sinks = self.acts.new_zeros(decoder.n_layers, n_rows, 0)
        self._dims: list[tuple[int, ...] | str] = ["auto"] * n_rows

    def layers_of(self, method: VAR) -> range:
        return range(FIRST_LAYER, self.decoder.n_layers)

    def set_rows(self, rows: Sequence[int], methods: Sequence[VAR | None]) -> Tensor:
        for row, method in zip(rows, methods, strict=True):
            self._dims[row] = method.sink_dims if method else "auto"
        return super().set_rows(rows, methods)

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        longest = max(len(prompt.visual) for prompt in prompts)
        self._sinks = widened(self._sinks, longest)
        self._sinks[:, index] = False
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            one = index[place : place + 1]
            sizes = prompt.noted[SinkSizes(self._dims[row])][:, None]
            self._sinks[:, one, : sizes.shape[-1]] = sizes > self.parameter("tau")[one, None].to(sizes.dtype)

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        import torch

        masks, some, nearly_none = self._worked_out(seen, weights)
        own = masks[seen.layer - self.layers.start]
        sums = weights @ own  # of each head's weights, [n, heads, 3]
        of_sinks, of_others, of_visual_sinks = sums.split(1, dim=-1)
        of_visual = of_others + of_visual_sinks
        share = of_visual_sinks / (of_visual + nearly_none)
        changed = (of_visual >= LEAST_ON_IMAGE) & (share <= self.value(seen, "rho", weights)) & (of_others > 0)
        changed &= some[seen.layer - self.layers.start]
        freed = 1 - self.value(seen, "p", weights)
        # By which share of theirs weights change: of sinks p - 1, of others what all sinks lose, in proportion.
        shares = torch.cat([-torch.ones_like(of_sinks), of_sinks / of_others], dim=-1) * freed
        shares = shares.where(changed, shares.new_zeros(()))
        return weights.addcmul_(weights, shares @ own[..., :2].transpose(1, 2))

    def _worked_out(self, seen: Seen, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is the same for all tokens of a caption.

        Returns
        -------
        tuple
            Sinks, visual tokens that are none, visual sinks, 1 or 0, [layers, n, positions, 3]; where there are any of
            the last and the method acts, [layers, n, 1, 1] bool; and EPSILON for each visual token, [n, 1, 1].
        """
        import torch

        def masks() -> Tensor:
            layers = slice(self.layers.start, self.layers.stop)
            sinks = fitted(seen.of_rows(self._sinks[layers].transpose(0, 1)).transpose(0, 1), max(seen.prompt, width))
            visual = seen.visual & sinks[..., : seen.prompt]
            others = seen.visual & ~sinks[..., : seen.prompt]
            # Prompt tokens that a row runs itself stand at the beginning of its text.
            places = seen.read[:, None] + sinks.new_ones(weights.shape[-1] - seen.prompt).cumsum(0) - 1
            there = places < sinks.shape[-1]
            in_text = sinks.gather(2, places.where(there, 0).expand(len(sinks), -1, -1)) & there
            nothing = torch.zeros_like(in_text)
            by_position = [[sinks[..., : seen.prompt], in_text], [others, nothing], [visual, nothing]]
            return torch.stack([torch.cat(kind, dim=-1) for kind in by_position], dim=-1).to(weights.dtype)

        def some() -> Tensor:
            there = found[..., 2].any(2)[..., None, None]
            return there & self._acts(seen)[self.layers.start : self.layers.stop]

        width = self._sinks.shape[-1]
        found = self.once(seen, "masks", masks)
        nearly_none = self.once(
            seen, "nearly none", lambda: EPSILON * seen.visual.sum(1, dtype=weights.dtype)[:, None, None]
        )
        return found, self.once(seen, "some", some), nearly_none

    def captured_with(self) -> Hashable:
        return super().captured_with(), self._sinks.data_ptr(), self._sinks.shape

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._sinks = moved(self._sinks, index, axis=1)
