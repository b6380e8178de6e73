"""A small text decoder on its own, and what it makes of a prompt and some tokens."""

import torch
from small_models import small_llava

from kvtune.hf import CACHE


def decoder(dtype=torch.float32, seed=0):
    return small_llava(seed, layers=2, kv_heads=2, dtype=dtype).model.language_model


@torch.inference_mode()
def logits(model, steps=2):
    """A prompt of two rows of five tokens and then one token a row a few times: hidden states of all steps."""
    torch.manual_seed(1)
    states = [model(inputs_embeds=torch.randn(2, 5, model.config.hidden_size).to(model.dtype), use_cache=True)]
    for _ in range(steps):
        new = torch.randn(2, 1, model.config.hidden_size).to(model.dtype)
        states.append(model(inputs_embeds=new, **{CACHE: states[-1][CACHE]}, use_cache=True))
    return torch.cat([state.last_hidden_state for state in states], 1)
