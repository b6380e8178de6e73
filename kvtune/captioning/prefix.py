"""What an image's prompt leaves behind after its prefill, and where a caption begins."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from kvtune.models.decoder_inputs import VisualTokens


@dataclasses.dataclass(frozen=True)
class PromptEnd:
    """What the captions of one image begin with.

    Attributes
    ----------
    length
        Prompt tokens.
    outputs
        Attention output of the last one, [layers, heads, head_dim].
    first_token
        The first token of every caption of this image, whatever the method.
    next_position
        The rotary position of that token.
    visual
        Which of the prompt's tokens are the image's, and where in the picture they are.
    """

    length: int
    outputs: Tensor
    first_token: int
    next_position: int
    visual: VisualTokens


@dataclasses.dataclass(frozen=True)
class Prefix:
    """One image's prompt after its prefill.

    Attributes
    ----------
    keys, values
        [layers, kv_heads, prompt tokens, head_dim], without padding.
    """

    keys: Tensor
    values: Tensor
    end: PromptEnd

    @property
    def length(self) -> int:
        return self.end.length
