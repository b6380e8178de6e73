"""All that is known of transformers' internals: the text decoder, the attention switch, the cache's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from kvtune.errors import RequestError

CACHE_NAMES = ("cache", "past_key_values")
"""The names that there have been; newer versions take the older one too."""

CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
"""The name in this version, of the argument and of the field of a model's output."""


def given_cache(keywords: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward pass or of ``generate()``; None if there is none."""
    return next((keywords[name] for name in CACHE_NAMES if keywords.get(name) is not None), None)


def text_decoder(model: Any) -> Any:
    """The stack of decoder layers that writes the text.

    Raises
    ------
    RequestError
        If the model has none that kvtune knows how to reach.
    """
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else model
    if not hasattr(decoder, "layers") and hasattr(decoder, "get_decoder"):  # a causal language model within the model
        decoder = decoder.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "self_attn") for layer in layers):
        raise RequestError(f"{type(model).__name__} is not supported: its text decoder has no plain list of layers")
    if getattr(decoder, "_supports_attention_backend", False) is False:
        raise RequestError(f"{type(model).__name__} is not supported: its decoder takes no attention function")
    return decoder


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Let the text decoder of ``model`` use the registered attention function ``name`` for a while."""
    configs = (text_decoder(model).config, model.config.get_text_config(decoder=True))
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
