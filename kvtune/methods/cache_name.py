"""What models call their KV cache: ``cache`` since transformers 5.24, ``past_key_values`` before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE_NAMES = ("cache", "past_key_values")
"""The names that there have been; newer versions take the older one too."""

CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
"""The name in this version, of the argument and of the field of a model's output."""


def given_cache(keywords: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward pass or of ``generate()``; None if there is none."""
    return next((keywords[name] for name in CACHE_NAMES if keywords.get(name) is not None), None)
