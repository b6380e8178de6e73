"""KVSmooth as the design reads it, written as loops over one caption, a plain cache and eager attentions.

Nothing of the product is used: the model writes its own attentions, and smoothing happens on plain tensors.
"""

import contextlib
import math
from collections import deque
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from kvtune.hf import CACHE


@dataclass
class NaiveRun:
    tokens: list[int]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    entropies: list[list[float]] = field(default_factory=list)
    factors: list[list[float]] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)


def naive_decode(model, inputs, parameters, steps, eos=None, first_position=None):
    """Greedy decoding of one row; ``parameters`` are KVSmooth's, as a dict, or None for the plain model.

    ``first_position`` is the rotary position of the first generated token, where it is not the prompt's length.
    """
    decoder = model.get_decoder()
    text = decoder.config
    before = text._attn_implementation
    text._attn_implementation = "eager"
    o_hooks = (
        _OutputSmoothing(decoder, parameters) if parameters and parameters["target"] == "attention_output" else None
    )
    try:
        with torch.no_grad(), o_hooks or contextlib.nullcontext():
            cache = DynamicCache(config=text)
            out = model(**inputs, **{CACHE: cache}, use_cache=True)
            layers = len(decoder.layers)
            queues = [deque(maxlen=parameters["queue_length"]) if parameters else None for _ in range(layers)]
            run = NaiveRun([], [], [])
            mask = inputs["attention_mask"]
            logits = out.logits[0, -1]
            for step in range(steps):
                run.logits.append(logits)
                token = int(logits.argmax())
                run.tokens.append(token)
                if token == eos:
                    break
                mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
                position = mask.sum(1, keepdim=True) - 1
                if first_position is not None:
                    position[:] = first_position + step
                if o_hooks:
                    o_hooks.decoding = True
                out = decoder(
                    inputs_embeds=model.get_input_embeddings()(torch.tensor([[token]])),
                    attention_mask=mask,
                    position_ids=position,
                    **{CACHE: cache},
                    use_cache=True,
                    output_attentions=True,
                )
                logits = model.get_output_embeddings()(out.last_hidden_state)[0, -1]
                if parameters is None:
                    continue
                run.entropies.append([])
                run.factors.append([])
                for layer in range(layers):
                    z = _entropy(out.attentions[layer][0, :, 0])
                    run.entropies[-1].append(z)
                    if not parameters["start_layer"] <= layer < parameters["end_layer"]:
                        run.factors[-1].append(0.0)
                        continue
                    factor = _factor(z, queues[layer], parameters)
                    run.factors[-1].append(factor)
                    cached = cache.layers[layer]
                    tensors = {"kv": [cached.keys, cached.values], "k": [cached.keys], "attention_output": []}
                    for tensor in tensors[parameters["target"]]:
                        for head in range(tensor.shape[1]):
                            new, old = tensor[0, head, -1].clone(), tensor[0, head, -2].clone()
                            tensor[0, head, -1] = (1 - factor) * new + factor * old
            run.keys = [layer.keys for layer in cache.layers]
            run.values = [layer.values for layer in cache.layers]
            return run
    finally:
        text._attn_implementation = before


def _entropy(rows):
    total = 0.0
    for head in range(rows.shape[0]):
        for weight in rows[head].double().tolist():
            total -= weight * math.log(weight + 1e-10)
    return total / rows.shape[0]


def _factor(z, queue, parameters):
    queue.append(z)
    if not parameters["adaptive"]:
        return parameters["lambda_ref"]
    smaller = sum(1 for entry in queue if entry < z)
    share = smaller / len(queue)
    low = parameters["lambda_ref"] - parameters["clip_width"]
    high = parameters["lambda_ref"] + parameters["clip_width"]
    return min(max(share, low), high)


class _OutputSmoothing:
    """Table 4's ablation by hooks on the output projections, whose input is the per-head attention output."""

    def __init__(self, decoder, parameters):
        self.decoder, self.parameters = decoder, parameters
        self.decoding = False
        self.before = {}
        self.queues = {}
        self.handles = []

    def __enter__(self):
        for index in range(self.parameters["start_layer"], self.parameters["end_layer"]):
            attention = self.decoder.layers[index].self_attn
            self.handles.append(attention.register_forward_hook(self._after(index), with_kwargs=True))
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()

    def _after(self, index):
        queue = deque(maxlen=self.parameters["queue_length"])

        def hook(module, args, kwargs, output):
            # Undo nothing: recompute the per-head output from the weights and the cache, smooth it, project again.
            weights = output[1]
            values = kwargs[CACHE].layers[index].values
            groups = weights.shape[1] // values.shape[1]
            per_head = torch.stack(
                [weights[0, head] @ values[0, head // groups] for head in range(weights.shape[1])], dim=1
            )  # [tokens, heads, head_dim]
            if not self.decoding:
                self.before[index] = per_head[-1]
                return None
            factor = _factor(_entropy(weights[0, :, 0]), queue, self.parameters)
            smoothed = (1 - factor) * per_head[-1] + factor * self.before[index]
            self.before[index] = smoothed
            return module.o_proj(smoothed.reshape(1, 1, -1)), weights

        return hook
