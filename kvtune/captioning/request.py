"""What goes into the engine and what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from kvtune.methods import Method

FinishReason = Literal["eos", "length", "stop"]


@dataclasses.dataclass
class Work:
    """What a run has done so far.

    Attributes
    ----------
    prompts
        Prompts that were run.
    tokens
        Tokens that were written.
    in_flight
        Those of them that belong to captions which have not ended.
    rows
        Captions that are written at once, where a call tells of more than a batch of prompts or a step; else None.
    by
        Who does it, in lines of words, the first about all of them, where that is more than one device.
    cost
        What the steps cost, by what each read and computed; see :class:`kvtune.captioning.cost_model.StepCost`.
    prompts_cost
        What the prompts cost, in the same measure.
    room
        Captions that there is room for at once.
    by_image
        Whether images have lanes of their own; see :class:`kvtune.captioning.cost_model.Shape`.
    """

    prompts: int = 0
    tokens: int = 0
    in_flight: int = 0
    rows: int | None = None
    by: str = ""
    cost: float = 0.0
    room: int = 0
    by_image: bool = False
    prompts_cost: float = 0.0

    def after(self, before: Work) -> Work:
        """What was done with what had been done before; what is of now stays."""
        return dataclasses.replace(self, **{name: getattr(self, name) + getattr(before, name) for name in _DONE})

    def since(self, before: Work) -> Work:
        """What was done beyond what had been done before; what is of now stays."""
        return dataclasses.replace(self, **{name: getattr(self, name) - getattr(before, name) for name in _DONE})


_DONE = ("prompts", "tokens", "cost", "prompts_cost")
"""What adds up from run to run, and from worker to worker."""


@dataclasses.dataclass(frozen=True)
class CaptionRequest:
    """One caption to write.

    Attributes
    ----------
    image_id
        What the caller calls the image, a number or a name; comes back with the caption.
    image
        An RGB image, or the path of one, opened when its turn comes.
    method
        None is the baseline.
    tag
        Comes back with the caption; :meth:`Captioner.withdraw` takes back all requests of a tag.
    max_new_tokens
        A limit of this caption's own, below the captioner's.
    """

    image_id: Any
    image: Image.Image | Path
    method: Method | None = None
    tag: Hashable = None
    max_new_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption.

    Attributes
    ----------
    token_ids
        What was generated, without the token or sequence that ended it.
    finish_reason
        ``eos``: end-of-text; ``stop``: the family's stop sequence; ``length``: the limit was hit.
    """

    image_id: Any
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    tag: Hashable = None


def cut(
    token_ids: Sequence[int], eos: Sequence[int], stops: Sequence[Sequence[int]]
) -> tuple[list[int], FinishReason] | None:
    """Generated tokens up to what ends them, and what that is; None if they are not at an end yet."""
    for index, token in enumerate(token_ids):
        if token in eos:
            return list(token_ids[:index]), "eos"
        for stop in stops:
            if index + 1 >= len(stop) and list(token_ids[index + 1 - len(stop) : index + 1]) == list(stop):
                return list(token_ids[: index + 1 - len(stop)]), "stop"
    return None
