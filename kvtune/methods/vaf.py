"""VAF: scores of the image amplified, those of the system prompt damped."""

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
class VAF(Method):
    """Visual Amplification Fusion ("ClearSight", Yin et al. 2025, arXiv 2503.13107).

    Before the softmax, scores of visual tokens are multiplied by ``visual_gain`` and those of tokens before the image
    by ``system_gain``, for every token after the image and in all heads, as the authors' code has it. A negative score
    is moved the other way by that, there as here. The paper takes only heads that look at the image; the code's
    settings are those of yes-or-no questions (POPE), for it writes no captions.

    Parameters
    ----------
    visual_gain
        Factor on scores of visual tokens, 0 or more; 1.15 in the code.
    system_gain
        Factor on scores of tokens before the first visual one, 0 or more; 0.95 in the code.
    start_layer, end_layer
        Layers ``start_layer <= l < end_layer``, 0-based; the code's are 9 to 14 of LLaVA-1.5's 32, both included.
    """

    name: ClassVar[str] = "vaf"
    acts_from: ClassVar[ActsFrom] = "after_image"
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            "llava-1.5",
            {"visual_gain": 1.15, "system_gain": 0.95, "start_layer": 9, "end_layer": 15},
            "code of ustc-hyin/ClearSight",
        ),
    )

    visual_gain: float = number(1.15, low=0, search=(1.0, 1.5, 0.05))
    system_gain: float = number(0.95, low=0, search=(0.5, 1.0, 0.05))
    start_layer: int = start_layer(9, split=0.375)
    end_layer: int = end_layer(15, split=0.375)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> VAFRows:
        return VAFRows(cls, n_rows, decoder, device)


class VAFRows(RowState[VAF]):
    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        def gains() -> Tensor:
            # Never quite 0, by which padding, among what is before the image, would come to be seen.
            gain = self.value(seen, "system_gain", scores).clamp(min=1e-20)
            system = gain.where(seen.system[:, None], scores.new_ones(()))
            return self.value(seen, "visual_gain", scores).where(seen.visual[:, None], system)

        prompt = scores[..., : seen.prompt]
        prompt *= self.once(seen, "gains", gains).where(self.acting(seen), scores.new_ones(()))
        return scores
