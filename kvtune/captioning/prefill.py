"""From prompts to prefixes: the decoder run over the prompt of each image, once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from kvtune.captioning.greedy import choose
from kvtune.captioning.grid_attention import ATTENTION
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.prefix import Prefix, PromptEnd
from kvtune.errors import RequestError
from kvtune.hf import CACHE, attention_implementation
from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import AnyFact, PromptFacts, watched
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import Prompt, put_together


def prefill(
    vlm: VisionLanguageModel,
    prompts: Sequence[Prompt],
    facts: Collection[AnyFact] = (),
    together: Callable[[int], int] = prompts_together,
) -> Iterator[Prefix]:
    """Prefixes of ``prompts``, computed in batches and handed out one at a time, for each is a copy.

    Parameters
    ----------
    facts
        What is to be noted of the forward pass besides.
    together
        Prompts of a batch at most, by the length of the longest.
    """
    for batch in batches(prompts, together):
        yield from _prefill_together(vlm, batch, facts)


def batches(prompts: Sequence[Prompt], together: Callable[[int], int]) -> Iterator[Sequence[Prompt]]:
    """Prompts in their order, as many at a time as are run together."""
    begin = 0
    for end in range(1, len(prompts) + 1):
        longest = max(prompt.length for prompt in prompts[begin : end + 1])
        if end == len(prompts) or end + 1 - begin > together(longest):
            yield prompts[begin:end]
            begin = end


def _prefill_together(
    vlm: VisionLanguageModel, prompts: Sequence[Prompt], facts: Collection[AnyFact]
) -> Iterator[Prefix]:
    cache: Any = DynamicCache(config=vlm.decoder.config)
    outputs: list[Tensor] = []
    decoder = decoder_of(vlm)
    with attention_implementation(vlm.hf_model, ATTENTION), watched(facts, decoder) as noted:
        hidden = vlm.decoder(
            **put_together(prompts), **{CACHE: cache}, use_cache=True, kvtune_last_outputs=outputs
        ).last_hidden_state[:, -1]
    _check_layers(vlm, prompts, cache, outputs)
    first_tokens = choose(vlm.hf_model.get_output_embeddings()(hidden)).to(vlm.device)
    last_outputs = torch.stack([output.to(vlm.device) for output in outputs])
    cards = [list(layers) for _, layers in groupby(cache.layers, key=lambda layer: layer.keys.device)]
    for row, prompt in enumerate(prompts):
        keys, values = (
            tuple(torch.stack([getattr(layer, name)[row, :, -prompt.length :] for layer in layers]) for layers in cards)
            for name in ("keys", "values")
        )
        known = PromptFacts(
            prompt.visual.mask,
            prompt.visual.places,
            last_outputs[:, row].clone(),
            {fact: fact.of_row(decoder, seen, row, 0, prompt.visual.mask) for fact, seen in noted.items()},
        )
        own = prompt.after_image, known, prompt.is_causal_after_image
        end = PromptEnd(prompt.length, first_tokens[row], prompt.next_position, *own)
        yield Prefix(keys, values, end)


def decoder_of(vlm: VisionLanguageModel, of_card: range | None = None) -> Decoder:
    """What methods may know of a model, those on one card if its layers are given."""
    return Decoder(
        vlm.n_layers, vlm.heads.heads, vlm.decoder, vlm.hf_model.get_output_embeddings(), vlm.has_places, of_card
    )


def _check_layers(vlm: VisionLanguageModel, prompts: Sequence[Prompt], cache: Any, outputs: Sequence[Tensor]) -> None:
    """Refuse decoders whose layers do not all keep keys and values, of one shape, of every token."""
    longest = max(prompt.length for prompt in prompts)
    expected = (len(prompts), vlm.heads.kv_heads, longest, vlm.head_dim)
    shapes = {tuple(states.shape) for layer in cache.layers for states in (layer.keys, layer.values)}
    if len(outputs) != vlm.n_layers or len(cache.layers) != vlm.n_layers or shapes != {expected}:
        raise RequestError(
            f"{vlm.name} is not supported: its layers do not all keep keys and values of every token, of one shape"
        )
