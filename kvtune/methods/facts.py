"""What a method may know of a prompt: its visual tokens, their places, and what its forward pass shows."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.decoder import Decoder


class Fact(ABC):
    """Something that a method wants to know of a prompt's forward pass.

    Equal facts, as of methods that ask for the same, are noted once.
    """

    @abstractmethod
    def watch(self, decoder: Decoder, noted: list[Tensor]) -> Sequence[Any]:
        """Hooks that put what they see of a forward pass into ``noted``; their ``remove`` ends it."""

    @abstractmethod
    def of_row(self, decoder: Decoder, noted: list[Tensor], row: int, begin: int, visual: Tensor) -> Any:
        """What was noted of one prompt of the batch.

        Parameters
        ----------
        row
            The prompt's row; of its positions the last are looked at, as many as ``visual`` has.
        begin
            The first of those that is the prompt's; padding stands before it.
        visual
            [positions] bool: which of them are visual.

        Returns
        -------
        Any
            In memory of its own, on the device of ``visual``; with a method ``to(device)``.
        """


@dataclasses.dataclass(frozen=True)
class Depth:
    """How far away what each visual token sees is, [visual tokens], 0 to 1 of the picture; NaN for one without a place.

    Attributes
    ----------
    source
        Where it comes from: see :func:`kvtune.models.depth.depth_maps`.
    """

    source: str


AnyFact = Fact | Depth


@dataclasses.dataclass(frozen=True)
class PromptFacts:
    """What is known of one prompt.

    Attributes
    ----------
    visual
        [prompt tokens] bool, on the model's device: which are visual.
    places
        [visual tokens, 2]: the middle of what each sees, across and down, 0 to 1 of the picture that the model sees;
        NaN for one that has no place. None where visual tokens have none at all.
    outputs
        [layers, heads, head_dim]: the last token's attention output, before the projection.
    noted
        What was asked of the picture and of the prompt's forward pass.
    """

    visual: Tensor
    places: Tensor | None
    outputs: Tensor
    noted: Mapping[AnyFact, Any] = dataclasses.field(default_factory=dict)

    def to(self, device: Any) -> PromptFacts:
        """The same on ``device``."""
        places = None if self.places is None else self.places.to(device)
        noted = {fact: one.to(device) for fact, one in self.noted.items()}
        return PromptFacts(self.visual.to(device), places, self.outputs.to(device), noted)


@contextmanager
def watched(facts: Iterable[AnyFact], decoder: Decoder) -> Iterator[Mapping[Fact, list[Tensor]]]:
    """Note the facts of forward passes within the block."""
    noted: dict[Fact, list[Tensor]] = {fact: [] for fact in facts if isinstance(fact, Fact)}
    with ExitStack() as undo:
        for fact, found in noted.items():
            for hook in fact.watch(decoder, found):
                undo.callback(hook.remove)
        yield noted
