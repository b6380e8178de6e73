"""What an image's prompt leaves behind after its prefill, and where a caption begins."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from kvtune.errors import RequestError
from kvtune.methods import Method
from kvtune.methods.facts import PromptFacts
from kvtune.methods.row_state import first_acting


@dataclasses.dataclass(frozen=True)
class PromptEnd:
    """What the captions of one image begin with.

    Attributes
    ----------
    length
        Prompt tokens.
    first_token
        The first token of a caption of this image, where no method acts on the prompt; one whole number, on the device,
        for nobody waits for it.
    next_position
        The rotary position of that token.
    after_image
        Ids of the prompt's tokens after the last visual one.
    facts
        What methods may know of the prompt.
    is_causal
        Whether none of those tokens sees a later one.
    """

    length: int
    first_token: Tensor
    next_position: int
    after_image: tuple[int, ...]
    facts: PromptFacts
    is_causal: bool

    def forced(self, method: Method | None) -> tuple[int, ...]:
        """Ids of the last prompt tokens, which a row runs itself because its method acts on them.

        Raises
        ------
        RequestError
            If it cannot run them one by one.
        """
        acts_from = first_acting(method)
        if method is None or acts_from == "generated":
            return ()
        if not self.is_causal:
            raise RequestError(
                f"{method.name} acts on the prompt's last tokens, and in this model these see each other both ways, so "
                "that the whole prompt would change; take a method that acts on generated tokens alone, as kvsmooth"
            )
        return self.after_image[-1:] if acts_from == "last_prompt_token" else self.after_image


class KnownPrompts:
    """The ends of the prompts on a grid, by the number of the image."""

    def __init__(self) -> None:
        self._prompts: dict[int, PromptEnd] = {}

    def known(self, image: int) -> PromptFacts:
        """What is known of the prompt of an image."""
        return self._prompts[image].facts

    def learn(self, image: int, facts: PromptFacts) -> None:
        """Know more of the prompt of an image."""
        self._prompts[image] = dataclasses.replace(self._prompts[image], facts=facts)


@dataclasses.dataclass(frozen=True)
class Prefix:
    """One image's prompt after its prefill.

    Attributes
    ----------
    keys, values
        [layers, kv_heads, prompt tokens, head_dim], without padding, of the layers on each card, and there.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    end: PromptEnd

    @property
    def length(self) -> int:
        return self.end.length
