"""What the arguments of ``generate()``, or of a model's forward pass, say of the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from kvtune.errors import RequestError
from kvtune.hf import given_cache, image_token_id, visual_tokens


def token_ids(*arguments: Any, **keywords: Any) -> Tensor | None:
    """The prompt's token ids, [rows, tokens]; None where it is given as embeddings."""
    for given in (*arguments[:1], *map(keywords.get, ("inputs", "input_ids"))):
        if isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point():
            return given
    return None


def prompt_length(*arguments: Any, **keywords: Any) -> int | None:
    """Cache positions that the prompt of a ``generate`` call fills; None if the call does not say."""
    inputs = [*arguments[:1], *map(keywords.get, ("inputs", "input_ids", "inputs_embeds", "attention_mask"))]
    # Pixel values may stand first: images have four axes or more, prompts two, embedded prompts three.
    lengths = [tensor.shape[1] for tensor in inputs if isinstance(tensor, Tensor) and tensor.ndim in (2, 3)]
    if not lengths:
        return None
    cache = given_cache(keywords)
    past = int(cache.get_seq_length()) if isinstance(cache, Cache) else 0
    # With only the new tokens given, the cache comes on top; the whole conversation, or its mask, is longer than it.
    return max(lengths) if max(lengths) > past else max(lengths) + past


def visual_tokens_of_rows(model: Any, inputs: Mapping[str, Any], rows: int, length: int) -> Tensor:
    """Which prompt tokens of each row of a batch are visual, [rows, length] bool; beams share a prompt.

    Parameters
    ----------
    inputs
        What the model was given.
    rows, length
        Of the batch as it is decoded.

    Raises
    ------
    RequestError
        If that is not to be known, or a prompt has none.
    """
    if image_token_id(model.config) is None:
        raise RequestError(f"{type(model).__name__} has no image token, on which the method acts")
    ids = inputs.get("input_ids")
    if ids is None or ids.shape[1] != length or rows % len(ids):
        raise RequestError("the method acts on visual tokens: call the model with input_ids, the whole prompt's")
    visual = visual_tokens(model.config, inputs)
    if not visual.any(1).all():
        raise RequestError("the method acts on visual tokens, but a prompt has none")
    return visual.repeat_interleave(rows // len(ids), dim=0)
