"""Reasoning that a thinking model writes before its answer: asked not to, and cut where it does all the same."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kvtune.text import ENDS_OF_REASONING

WITHOUT_THINKING = {"enable_thinking": False, "thinking": False}
"""Variables by which chat templates are asked for an answer without reasoning; a template ignores what it has not."""

_BEGINNINGS = tuple(end.replace("/", "").replace("end_of", "begin_of") for end in ENDS_OF_REASONING)

log = logging.getLogger(__name__)


def answer_ids(tokenizer: Any, token_ids: Sequence[int]) -> Sequence[int]:
    """The tokens after the last end of a reasoning block; none where one begins and does not end."""
    text = tokenizer.decode(token_ids, skip_special_tokens=False)
    if any(end in text for end in ENDS_OF_REASONING):
        log.warning("a caption begins with reasoning, which is cut")
        return token_ids[_end(tokenizer, token_ids) :]
    if text.lstrip().startswith(_BEGINNINGS):
        log.warning("a caption is all reasoning, which is cut; give it more tokens with --max-new-tokens")
        return []
    return token_ids


def _end(tokenizer: Any, token_ids: Sequence[int]) -> int:
    """How many tokens it takes to spell the last end of reasoning."""
    ends = 0
    for count in range(1, len(token_ids) + 1):
        text = tokenizer.decode(token_ids[ends:count], skip_special_tokens=False)
        if any(end in text for end in ENDS_OF_REASONING):
            ends = count
    return ends
