"""More attention to the image in the middle layers, by the mean size over heads."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from kvtune.methods.decoder import Decoder
from kvtune.methods.method import Method, Published
from kvtune.methods.parameters import end_layer, number, start_layer
from kvtune.methods.row_state import ActsFrom, RowState

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.seen import Seen


@dataclasses.dataclass(frozen=True)
class MiddleLayers(Method):
    """Heads guided in the middle layers ("Devils in Middle Layers", Jiang et al. 2025, arXiv 2411.16724).

    ``s_hj <- s_hj + alpha mean_h |s_hj|`` before the softmax for every visual token j and head h, from the last prompt
    token on, as the authors' code has it.

    Parameters
    ----------
    alpha
        Share of the mean size, 0 or more; 0.5 in the code.
    start_layer, end_layer
        Layers ``start_layer <= l < end_layer``, 0-based; the code's are 5 to 18 of LLaVA-1.5's 32, both included.
    """

    name: ClassVar[str] = "middle_layers"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "llava-1.5", {"alpha": 0.5, "start_layer": 5, "end_layer": 19}, "code of ZhangqiJiang07/middle_layers"
        ),
    )

    alpha: float = number(0.5, low=0, search=(0.0, 1.0, 0.05))
    start_layer: int = start_layer(5)
    end_layer: int = end_layer(19)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> MiddleLayersRows:
        return MiddleLayersRows(cls, n_rows, decoder, device)


class MiddleLayersRows(RowState[MiddleLayers]):
    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        visual = scores[..., : seen.prompt]
        sizes = (visual.abs() * seen.on_visual(scores)).mean(1, keepdim=True)
        visual += self.at(seen, "alpha", scores) * sizes
        return scores
