"""VAR: attention that sinks take is given to the image's other tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from kvtune.errors import RequestError
from kvtune.methods.facts import Fact, PromptFacts
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import listed, number
from kvtune.methods.row_state import ActsFrom, RowState, moved, widened
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
    that have a visual sink, and every token after the image, as in the authors' code.

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
        if not is_list or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in self.sink_dims):
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
            normed = hidden * (hidden.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
            noted.append((normed if dims is None else normed[..., list(dims)]).abs())

        return [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in decoder.module.layers]

    def of_row(self, decoder: Decoder, noted: list[Tensor], row: int, begin: int, visual: Tensor) -> Tensor:
        import torch

        sizes = torch.stack([one[row, -len(visual) :] for one in noted])  # [layers, tokens, dims, or all of them]
        if self.dims == "auto" and decoder.module not in _dims_of:
            largest = sizes[FIRST_LAYER:, begin].mean(0).topk(2).indices
            _dims_of[decoder.module] = tuple(sorted(largest.tolist()))
        if self.dims == "auto" and sizes.shape[-1] > 2:
            sizes = sizes[..., list(_dims_of[decoder.module])]
        return sizes.amax(-1)


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
        self._sinks = widened(self._sinks, longest, False)
        self._sinks[:, index] = False
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            one = index[place : place + 1]
            sizes = prompt.noted[SinkSizes(self._dims[row])][:, None]
            self._sinks[:, one, : sizes.shape[-1]] = sizes > self.parameter("tau")[one, None].to(sizes.dtype)

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        sinks = self._sinks[seen.layer, seen.rows]
        on_image, visual = weights[..., : seen.prompt], seen.visual[:, None]
        sink_there = sinks[:, None, : seen.prompt]
        # Prompt tokens that a row runs itself stand at the beginning of its text.
        places = seen.read[:, None] + sinks.new_ones(weights.shape[-1] - seen.prompt).cumsum(0) - 1
        in_text = sinks.gather(1, places.clamp(max=sinks.shape[1] - 1)) & (places < sinks.shape[1])
        of_visual = (on_image * visual).sum(-1, keepdim=True)
        of_sinks = (on_image * (visual & sink_there)).sum(-1, keepdim=True)
        to_others = visual & ~sink_there
        of_others = (on_image * to_others).sum(-1, keepdim=True)
        share = of_sinks / (of_visual + EPSILON * visual.sum(-1, keepdim=True))
        rho, p = (self.parameter(name)[seen.rows].to(weights.dtype)[:, None, None] for name in ("rho", "p"))
        changed = (of_visual >= LEAST_ON_IMAGE) & (share <= rho) & self.acting(seen)
        changed &= (visual & sink_there).any(-1, keepdim=True) & (of_others > 0)

        on_text = weights[..., seen.prompt :]
        freed = (1 - p) * (
            (on_image * sink_there).sum(-1, keepdim=True) + (on_text * in_text[:, None]).sum(-1, keepdim=True)
        )
        kept = 1 - (1 - p) * sink_there
        gain = freed / of_others * to_others  # not a number where there are no others, which is left alone
        on_image.copy_((on_image * (kept + gain)).where(changed, on_image))
        on_text.copy_((on_text * (1 - (1 - p) * in_text[:, None])).where(changed, on_text))
        return weights

    def captured_with(self) -> Hashable:
        return super().captured_with(), self._sinks.data_ptr(), self._sinks.shape

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._sinks = moved(self._sinks, index, axis=1)
