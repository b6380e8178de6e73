"""The token that greedy decoding takes."""

from __future__ import annotations

import torch
from torch import Tensor

NO_TOKEN = -1
"""In place of a token where the logits are no numbers to choose by."""


def choose(logits: Tensor) -> Tensor:
    """The highest of each row of logits, [rows, vocabulary]; :data:`NO_TOKEN` where that is NaN or infinite.

    NaN anywhere in a row is its highest.
    """
    highest, tokens = logits.max(-1)
    return torch.where(highest.isfinite(), tokens, NO_TOKEN)
