"""The attention function of an attached method: SDPA for the prompt, row by row where a method reads or changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from kvtune.errors import RequestError
from kvtune.hf import check_attention, sdpa
from kvtune.methods.acting import Acting
from kvtune.methods.entropy import row_entropy
from kvtune.methods.followed_cache import newest
from kvtune.methods.lerp import lerp_
from kvtune.methods.row_methods import RowMethods
from kvtune.methods.row_state import RowState
from kvtune.methods.scaled_products import scaled_products
from kvtune.methods.seen import SeenPositions, position_classes

ATTENTION = "kvtune"
"""The name under which the attention function and its mask function are registered with transformers."""


class BatchMethods(RowMethods):
    """The methods of the rows of a batch, and which positions of their prompts are visual.

    Attributes
    ----------
    classes
        [3, rows, prompt positions] bool: before, of and after the image.
    """

    classes: Tensor

    def see(self, visual: Tensor) -> None:
        """Take which positions, [rows, prompt positions] bool, are visual."""
        self.classes = position_classes(visual)

    def move(self, order: np.ndarray, index: Tensor) -> None:
        super().move(order, index)
        self.classes = self.classes.index_select(1, index.to(self.classes.device))


@dataclasses.dataclass
class Step:
    """One forward pass of the decoder, as the attention function sees it, and methods when all layers are through.

    Attributes
    ----------
    first
        For each row the first of this pass's tokens on which its method acts; as many as there are where on none.
    to_come
        Prompt tokens that come after the last one of this pass; -1 for a token that was generated.
    positions
        Tokens that are cached when the pass is over: fewer than the prompt has while it comes in parts.
    observed
        Entropies of all layers, where somebody looks on.
    last_outputs
        The last token's attention output in each layer of a prompt, [rows, heads, head_dim].
    cache
        What keys and values are drawn in when all layers are through; None until then, for who has a step of a pass
        that failed is not to hold it.
    """

    methods: BatchMethods
    is_prompt: bool
    first: np.ndarray | None = None
    to_come: int = -1
    positions: int = 0
    observed: list[Tensor] | None = None
    last_outputs: list[Tensor] = dataclasses.field(default_factory=list)
    cache: Any = None
    _entropies: dict[int, Tensor] = dataclasses.field(default_factory=dict)
    _found: list[Acting] | None = None

    @property
    def states(self) -> list[RowState[Any]]:
        return list(self.methods.states.values())

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
    ) -> tuple[Tensor, Tensor]:
        """Attention of one generated token a row; shapes as transformers passes them."""
        states = [state for state in self.states if layer in state.layers]
        scores = _scores(query, key, mask, scaling)[:, :, 0]
        weights = torch.softmax(scores, dim=-1)
        entropy = None
        if self.observed is not None or any(state.reads_entropy for state in states):
            entropy = row_entropy(weights)
        for acting in self._acting(np.zeros(len(query), dtype=int), 1):
            if acting.changes(layer):
                assert acting.index is not None
                self._check_window(scores.shape[-1])
                changed, own = acting.attend(layer, query[acting.index, :, 0], scores[acting.index], scaling)
                weights[acting.index] = changed
                if own is not None and entropy is not None:
                    entropy[acting.index] = own
        if entropy is not None:
            self._entropies[layer] = entropy
            if self.observed is not None:
                self.observed.append(entropy)
        weights = weights.to(query.dtype)
        output = _values(weights[:, :, None], value)[:, :, 0]
        for state in states:
            if state.changes_output:
                assert entropy is not None
                output = state.change_output(layer, output, entropy, self.generated.to(output.device))
        return output[:, None], weights[:, :, None]

    def attend_prompt(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        output: Tensor,
    ) -> Tensor:
        """The output of a prompt's attention, [rows, tokens, heads, head_dim], with what methods change of its end."""
        tokens = query.shape[2]
        if self.first is not None and (count := tokens - int(self.first.min())) > 0:
            last = query[:, :, -count:]
            scores = _scores(last, key, _causal(last, key, mask), scaling)  # [rows, heads, count, positions]
            for acting in self._acting(np.maximum(self.first - (tokens - count), 0), count):
                if not acting.changes(layer):
                    continue
                assert acting.index is not None
                self._check_window(scores.shape[-1])
                row, token = acting.seen.rows, acting.index
                own = scores[row, :, token]
                weights, _ = acting.attend(layer, last[row, :, token], own, scaling)
                changed = _values(weights.to(query.dtype)[:, :, None], value[row])[:, :, 0]
                output = output.clone()
                output[row, tokens - count + token] = changed
        if any(state.changes_output for state in self.states):
            self.last_outputs.append(output[:, -1].clone())
        return output

    def _check_window(self, positions: int) -> None:
        if positions < self._prompt_positions:
            raise RequestError(
                "the method changes attention to the whole prompt, of which a sliding window sees a part"
            )

    @property
    def _prompt_positions(self) -> int:
        """Prompt tokens that there are by now."""
        return min(self.positions, self.methods.classes.shape[2])

    def _acting(self, first: np.ndarray, count: int) -> list[Acting]:
        """Methods that change scores or weights of the last ``count`` tokens, of each row from ``first`` on.

        They are the same in all layers of a pass, whose rows are seen one for each token; :attr:`Acting.index` is the
        token's place here.
        """
        if self._found is not None:
            return self._found
        self._found = found = []
        for states, rows in self.methods.on_attention(np.arange(len(first))):
            own = [(row, token) for row in rows.tolist() for token in range(first[row], count)]
            if not own:
                continue
            row, token = torch.tensor(own, device=self.methods.classes.device).T
            to_come = self.to_come if self.to_come < 0 else self.to_come + (count - 1 - token)
            classes = self.methods.classes[:, row, : self._prompt_positions]
            read = torch.full_like(row, classes.shape[2])
            ends = [place for place, (_, token_of_row) in enumerate(own) if token_of_row == count - 1]
            newest = torch.tensor(ends, device=row.device) if count > 1 else None
            seen = SeenPositions(row, classes, read, torch.zeros_like(row) + to_come, newest=newest)
            found.append(Acting(states, seen, token if self.is_prompt else row))
        return found

    @property
    def generated(self) -> Tensor:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        rows = self.methods.classes.shape[1]
        return torch.full((rows,), self.to_come < 0, device=self.methods.classes.device)

    def entropies(self, layers: range) -> Tensor:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        device = self.methods.classes.device
        return torch.stack([self._entropies[layer].to(device) for layer in layers])

    def draw(self, layers: range, on_keys: Tensor, on_values: Tensor) -> None:
        """See :class:`kvtune.methods.row_state.StepEnd`."""
        for layer, key_factor, value_factor in zip(layers, on_keys.unbind(), on_values.unbind(), strict=True):
            cached = self.cache.layers[layer]
            new = newest(cached, self.positions)
            for states, factor in ((cached.keys, key_factor), (cached.values, value_factor)):
                lerp_(states[:, :, new], states[:, :, new - 1], factor[:, None, None].to(states.device))


@torch.compiler.disable
def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    kvtune_step: Step | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    """SDPA for the prompt and for layers that the method leaves alone; else attention whose rows are looked at.

    Shapes as transformers passes them: query [rows, heads, tokens, head_dim], key and value
    [rows, kv_heads, positions, head_dim]; returns [rows, tokens, heads, head_dim] and the weights.
    """
    check_attention(module, keywords)
    if kvtune_step is None:
        raise RequestError(f"{type(module).__name__} is not supported: what its decoder is given does not reach it")
    step, layer = kvtune_step, module.layer_idx
    if not step.is_prompt and any(layer in state.layers for state in step.states):
        return step.attend(layer, query, key, value, attention_mask, scaling)
    output, weights = sdpa(module, query, key, value, attention_mask, scaling=scaling, **keywords)
    if step.is_prompt:
        output = step.attend_prompt(layer, query, key, value, attention_mask, scaling, output)
    if step.observed is not None:
        scores = _scores(query, key, attention_mask, scaling)[:, :, -1]
        step.observed.append(row_entropy(torch.softmax(scores, dim=-1)))
    return output, weights


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Scores of some tokens under a mask, boolean or additive, [rows, heads, tokens, positions], at least float32."""
    rows, heads, tokens, head_dim = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, head_dim)
    scores = scaled_products(grouped, key, scaling).view(rows, heads, tokens, -1)
    if mask is not None and mask.dtype == torch.bool:
        hidden = ~mask
    elif mask is not None:
        hidden = mask <= torch.finfo(mask.dtype).min / 2
        scores = scores + mask
    else:
        return scores
    # The least of float16 would be a score that some changes of methods make matter, and of -inf they make NaN.
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def _values(weights: Tensor, value: Tensor) -> Tensor:
    """Values summed with weights [rows, heads, tokens, positions], [rows, heads, tokens, head_dim]."""
    rows, heads, tokens, positions = weights.shape
    grouped = weights.reshape(rows, value.shape[1], -1, positions)
    return torch.matmul(grouped, value).view(rows, heads, tokens, -1)


def _causal(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """What the last tokens of a prompt see: the end of its mask, or all before them where it has none."""
    count, positions = query.shape[2], key.shape[2]
    if mask is not None:
        return mask[:, :, -count:]
    places = torch.arange(positions, device=query.device)
    return places <= places[positions - count :, None]


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
