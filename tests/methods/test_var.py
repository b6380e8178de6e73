"""VAR's sinks: tokens whose hidden states are massive, whatever the model's type holds."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kvtune.methods.facts import watched
from kvtune.methods.var import SinkSizes

MASSIVE = 900.0
"""As LLaMA's first token has it; its square is beyond float16."""


def sizes_of(dims, hidden):
    """What is noted of one prompt whose layers have these inputs, [layers, tokens, width]."""
    module = nn.Module()
    module.layers = nn.ModuleList(nn.Identity() for _ in hidden)
    decoder, fact = SimpleNamespace(module=module), SinkSizes(dims)
    with watched({fact}, decoder) as noted:
        for layer, states in zip(module.layers, hidden, strict=True):
            layer(states[None])
    return fact.of_row(decoder, noted[fact], 0, 0, torch.ones(hidden.shape[1], dtype=torch.bool))


def naive_sizes(dims, hidden):
    found = []
    for states in hidden.tolist():
        rms = [(sum(x * x for x in token) / len(token) + 1e-6) ** 0.5 for token in states]
        found.append([max(abs(token[d]) for d in dims) / size for token, size in zip(states, rms, strict=True)])
    return torch.tensor(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dims", [(3, 17), "auto"])
def test_sinks_are_found_in_any_type(dtype, dims):
    hidden = torch.randn(4, 6, 64, generator=torch.Generator().manual_seed(0))
    hidden[:, 0, [3, 17]] = MASSIVE
    hidden[:, 4, 17] = -MASSIVE / 2
    hidden = hidden.to(dtype)
    found = sizes_of(dims, hidden)
    torch.testing.assert_close(found, naive_sizes((3, 17), hidden), rtol=1e-5, atol=0)
    assert ((found > 5).nonzero()[:, 1].reshape(4, 2) == torch.tensor([0, 4])).all()
