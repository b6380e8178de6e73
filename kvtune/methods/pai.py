"""PAI: more attention to the image, by its own size."""

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
class PAI(Method):
    """PAI's attention (Liu et al. 2024, arXiv 2407.21771): scores of visual tokens grow by a share of their size.

    ``s_j <- s_j + alpha |s_j|`` before the softmax for every visual token j, from the last prompt token on, as the
    authors' code has it. Its second part, contrasting with a stream that does not see the image, is not had here. The
    README's command has both on; the code then leaves the last prompt token alone and begins with the first generated.

    Parameters
    ----------
    alpha
        Share of the score, 0 or more; the repository's README gives 0.2 for each of its models, LLaVA-1.5, MiniGPT-4
        and Shikra.
    start_layer, end_layer
        Layers ``start_layer <= l < end_layer``, 0-based; the README's are 2 to 32 of 32.
    """

    name: ClassVar[str] = "pai"
    acts_from: ClassVar[ActsFrom] = "last_prompt_token"
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(model, {"alpha": 0.2, "start_layer": 2, "end_layer": 32}, "README of LALBJ/PAI, without its contrast")
        for model in ("llava-1.5", "minigpt4")
    )

    alpha: float = number(0.2, low=0, search=(0.0, 1.0, 0.05))
    start_layer: int = start_layer(2)
    end_layer: int = end_layer(32)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> PAIRows:
        return PAIRows(cls, n_rows, decoder, device)


class PAIRows(RowState[PAI]):
    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        visual = scores[..., : seen.prompt]
        visual += visual.abs() * (self.at(seen, "alpha", scores) * seen.on_visual(scores))
        return scores
