"""From prompts to prefixes: the decoder run over the prompt of each image, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from kvtune.captioning.greedy import choose
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.prefix import Prefix, PromptEnd
from kvtune.captioning.prompts import Prompt
from kvtune.hf import CACHE
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel


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
    longest = max(prompt.length for prompt in prompts)
    missing = [longest - prompt.length for prompt in prompts]
    embeddings = torch.stack([pad(prompt.embeddings, (0, 0, n, 0)) for prompt, n in zip(prompts, missing, strict=True)])
    positions = torch.stack([pad(prompt.positions, (n, 0)) for prompt, n in zip(prompts, missing, strict=True)], dim=-2)
    columns = torch.arange(longest, device=vlm.device)
    mask = (columns >= torch.tensor(missing, device=vlm.device)[:, None]).long()
    cache: Any = DynamicCache(config=vlm.decoder.config)
    outputs: list[Tensor] = []

    def keep(projection: object, arguments: tuple[Tensor, ...]) -> None:
        outputs.append(arguments[0][:, -1].clone())

    hooks = [layer.self_attn.o_proj.register_forward_pre_hook(keep) for layer in vlm.decoder.layers]
    try:
        hidden = vlm.decoder(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            **{CACHE: cache},
            use_cache=True,
        ).last_hidden_state[:, -1]
    finally:
        for hook in hooks:
            hook.remove()
    first_tokens = choose(vlm.hf_model.get_output_embeddings()(hidden)).tolist()
    heads = vlm.decoder.config.num_attention_heads
    last_outputs = torch.stack(outputs).view(len(outputs), len(prompts), heads, -1)
    for row, (prompt, method) in enumerate(zip(prompts, methods, strict=True)):
        keys = torch.stack([layer.keys[row, :, -prompt.length :] for layer in cache.layers])
        values = torch.stack([layer.values[row, :, -prompt.length :] for layer in cache.layers])
        if method is not None and method.prefix_key is not None:
            method.edit_prefix(list(keys[:, None]), list(values[:, None]))
        end = PromptEnd(prompt.length, last_outputs[:, row].clone(), first_tokens[row], prompt.next_position)
        yield Prefix(keys, values, end)
