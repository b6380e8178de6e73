"""The token that greedy decoding takes."""

from __future__ import annotations

import torch
from torch import Tensor

from kvtune.errors import KvtuneError

NO_TOKEN = -1
"""In place of a token where the logits are no numbers to choose by."""


def choose(logits: Tensor) -> Tensor:
    """The highest of each row of logits, [rows, vocabulary]; :data:`NO_TOKEN` where that is NaN or infinite.

    NaN anywhere in a row is its highest.
    """
    highest, tokens = logits.max(-1)
    return torch.where(highest.isfinite(), tokens, NO_TOKEN)


def no_numbers(image: str, dtype: str) -> KvtuneError:
    """What to say where a model in a type, such as ``float16-4bit``, has no logits for an image to choose by."""
    too_large = f"its numbers are too large for {dtype}, try --dtype float32; or " if "float16" in dtype else ""
    damaged = "its weights are damaged, copy or download them again"
    return KvtuneError(f"the model's logits for {image} are NaN or infinite: {too_large}{damaged}")
