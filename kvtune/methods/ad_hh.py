"""AD-HH: heads that look too much at text are kept from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kvtune.errors import RequestError
from kvtune.methods.decoder import Decoder
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import is_index, listed, number
from kvtune.methods.row_state import ActsFrom, RowState, moved
from kvtune.methods.sending import to_device
from kvtune.text import quoted

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.seen import Seen

Head = tuple[int, int]
"""Layer and head, both 0-based."""

LLAVA_7B = (
    (16, 29), (26, 9), (13, 31), (15, 10), (20, 12), (30, 9), (19, 18), (17, 0), (18, 9), (26, 28),
    (19, 27), (18, 26), (15, 25), (14, 16), (31, 26), (15, 24), (31, 3), (22, 20), (27, 29), (17, 28),
)  # fmt: skip
LLAVA_13B = (
    (0, 8), (29, 27), (23, 18), (20, 11), (36, 26), (19, 37), (22, 16), (22, 34), (21, 31), (20, 34),
    (37, 11), (17, 25), (35, 10), (17, 5), (15, 26), (0, 22), (19, 5), (19, 0), (14, 1), (23, 20),
    (21, 6), (30, 24), (26, 27), (21, 32), (15, 28), (15, 31), (19, 30), (20, 8), (19, 14), (14, 9),
    (39, 26), (25, 1), (18, 32), (17, 27), (39, 32),
)  # fmt: skip
_SOURCE = "code of TianyunYoung/Hallucination-Attribution"


@dataclasses.dataclass(frozen=True)
class ADHH(Method):
    """Hallucination heads, which attend to text too much, are kept from it.

    "Understanding and Mitigating Hallucination in Large Vision-Language Models via Modular Attribution and
    Intervention" (Yang et al. 2025).

    Where the attention weights of a listed head on all positions after the image sum to at least ``threshold``, they
    become 0 and the rest is not renormalised; from the last prompt token on. The sum is a row's own; in the authors'
    code it runs over the batch, which is the same at one caption a batch.

    Parameters
    ----------
    heads
        Pairs of layer and head, 0-based, for which there is no default: they belong to a model's weights. The code
        lists 20 for LLaVA-1.5-7B and 35 for the 13B.
    threshold
        Share of a head's attention on text after the image, 0 to 1; 0.4 in the code for LLaVA-1.5-7B.
    """

    name: ClassVar[str] = "ad_hh"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = (
        Published("llava-1.5", {"threshold": 0.4, "heads": [list(head) for head in LLAVA_7B]}, _SOURCE),
        Published("llava-1.5-13b", {"threshold": 0.4, "heads": [list(head) for head in LLAVA_13B]}, _SOURCE),
    )

    heads: tuple[Head, ...] = listed()
    threshold: float = number(0.4, low=0, high=1, search=(0.0, 1.0, 0.05))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.heads, Sequence) or isinstance(self.heads, str) or not self.heads:
            raise RequestError(f"heads must be a list of [layer, head] pairs, not {quoted(self.heads)}")
        for head in self.heads:
            if not isinstance(head, Sequence) or len(head) != 2 or not all(map(is_index, head)):
                raise RequestError(f"heads must be pairs of whole numbers, layer and head, not {quoted(head)}")
        object.__setattr__(self, "heads", tuple((layer, head) for layer, head in self.heads))

    def parameters(self) -> dict[str, Any]:
        return super().parameters() | {"heads": [list(head) for head in self.heads]}

    def check_model(self, decoder: Decoder) -> None:
        super().check_model(decoder)
        for layer, head in self.heads:
            if layer >= decoder.n_layers or head >= decoder.n_heads:
                raise RequestError(
                    f"heads has layer {layer}, head {head}, but the model has {decoder.n_layers} layers of "
                    f"{decoder.n_heads} heads"
                )

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> ADHHRows:
        return ADHHRows(cls, n_rows, decoder, device)


class ADHHRows(RowState[ADHH]):
    """Which heads are listed, [layers, rows, heads] bool."""

    def __init__(self, kind: type[ADHH], n_rows: int, decoder: Decoder, device: Any) -> None:
        super().__init__(kind, n_rows, decoder, device)
        self._listed = self.acts.new_zeros(decoder.n_layers, n_rows, decoder.n_heads)

    def layers_of(self, method: ADHH) -> range:
        layers = [layer for layer, _ in method.heads]
        return range(min(layers), max(layers) + 1)

    def set_rows(self, rows: Sequence[int], methods: Sequence[ADHH | None]) -> Tensor:
        index = super().set_rows(rows, methods)
        listed = np.zeros((self.decoder.n_layers, len(rows), self.decoder.n_heads), dtype=bool)
        for place, method in enumerate(methods):
            for layer, head in method.heads if method else ():
                listed[layer, place, head] = True
        self._listed[:, index] = to_device(listed, index.device)
        return index

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        import torch

        def after() -> Tensor:
            text = seen.after.new_ones(len(seen.after), weights.shape[-1] - seen.prompt)
            return torch.cat([seen.after, text], dim=1)[:, None]

        def thresholds() -> Tensor:
            """[layers, n, heads, 1]: what no sum of weights reaches where nothing is done."""
            listed = seen.of_rows(self._listed.transpose(0, 1)).transpose(0, 1)[..., None]
            never = weights.new_full((), torch.inf)
            return self.value(seen, "threshold", weights).where(listed & self._acts(seen), never)

        after_image = self.once(seen, "after", after)
        on_text = (weights * after_image).sum(-1, keepdim=True)
        off = on_text >= self.once(seen, "thresholds", thresholds)[seen.layer]
        return weights.masked_fill_(off & after_image, 0)

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._listed = moved(self._listed, index, axis=1)
