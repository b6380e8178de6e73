"""From prompts to prefixes: the decoder run over the prompt of each image, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from kvtune.captioning.greedy import choose
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.prefix import Prefix, PromptEnd
from kvtune.captioning.step import ATTENTION
from kvtune.errors import RequestError
from kvtune.hf import CACHE, attention_implementation
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import Prompt, put_together


def prefill(vlm: VisionLanguageModel, prompts: Sequence[Prompt], methods: Sequence[Method | None]) -> Iterator[Prefix]:
    """Prefixes of ``prompts``, computed in batches and handed out one at a time, for each is a copy.

    Parameters
    ----------
    methods
        One a prompt; those that touch the prompt do so here.
    """
    begin = 0
    for end in range(1, len(prompts) + 1):
        longest = max(prompt.length for prompt in prompts[begin : end + 1])
        if end == len(prompts) or end + 1 - begin > prompts_together(longest):
            yield from _prefill_together(vlm, prompts[begin:end], methods[begin:end])
            begin = end


def _prefill_together(
    vlm: VisionLanguageModel, prompts: Sequence[Prompt], methods: Sequence[Method | None]
) -> Iterator[Prefix]:
    cache: Any = DynamicCache(config=vlm.decoder.config)
    outputs: list[Tensor] = []
    with attention_implementation(vlm.hf_model, ATTENTION):
        hidden = vlm.decoder(
            **put_together(prompts), **{CACHE: cache}, use_cache=True, kvtune_last_outputs=outputs
        ).last_hidden_state[:, -1]
    _check_layers(vlm, prompts, cache, outputs)
    first_tokens = choose(vlm.hf_model.get_output_embeddings()(hidden)).tolist()
    last_outputs = torch.stack(outputs)
    for row, (prompt, method) in enumerate(zip(prompts, methods, strict=True)):
        keys = torch.stack([layer.keys[row, :, -prompt.length :] for layer in cache.layers])
        values = torch.stack([layer.values[row, :, -prompt.length :] for layer in cache.layers])
        if method is not None and method.prefix_key is not None:
            method.edit_prefix(list(keys[:, None]), list(values[:, None]))
        end = PromptEnd(
            prompt.length, last_outputs[:, row].clone(), first_tokens[row], prompt.next_position, prompt.visual
        )
        yield Prefix(keys, values, end)


def _check_layers(vlm: VisionLanguageModel, prompts: Sequence[Prompt], cache: Any, outputs: Sequence[Tensor]) -> None:
    """Refuse decoders whose layers do not all keep keys and values, of one shape, of every token."""
    config = vlm.decoder.config
    longest = max(prompt.length for prompt in prompts)
    expected = (len(prompts), config.num_key_value_heads, longest, vlm.head_dim)
    shapes = {tuple(states.shape) for layer in cache.layers for states in (layer.keys, layer.values)}
    if len(outputs) != vlm.n_layers or len(cache.layers) != vlm.n_layers or shapes != {expected}:
        raise RequestError(
            f"{vlm.name} is not supported: its layers do not all keep keys and values of every token, of one shape"
        )
