"""The grid: prefixes of images, suffixes of rows, and one decode step of them all.

Row ``group * lanes + lane`` decodes one caption. What an image's prompt left in the KV cache is held once a group and
read by all its lanes as one matrix product; what a row has generated is its own. A row's suffix starts with a copy of
the last prompt token, so that the position before any generated token is always the one before in the suffix.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvtune.methods import Method, RowState
from kvtune.methods.smoothing import lerp_, row_entropy, row_entropy_from_scores
from kvtune.models import VisionLanguageModel

ATTENTION = "kvtune_grid"
"""The name under which the grid's attention function is registered with transformers."""

_SLOTS = 128
"""Suffix slots that a grid starts with; they are doubled when a caption grows beyond."""


@dataclasses.dataclass(frozen=True)
class Prefix:
    """One image's prompt after its prefill.

    Attributes
    ----------
    keys, values
        [layers, kv_heads, prompt tokens, head_dim], without padding.
    outputs
        Attention output of the last prompt token, [layers, heads, head_dim].
    first_token
        The first token of every caption of this image, whatever the method.
    next_position
        The rotary position of that token.
    """

    keys: Tensor
    values: Tensor
    outputs: Tensor
    first_token: int
    next_position: int

    @property
    def length(self) -> int:
        return self.keys.shape[2]


class Grid:
    """Tensors of ``groups`` images by ``lanes`` captions each, and the decode step.

    Prefix tensors are [layers, groups, kv_heads, prompt tokens, head_dim], suffix tensors
    [layers, rows, kv_heads, slots, head_dim]; both grow when a longer prompt or caption comes.
    """

    def __init__(self, vlm: VisionLanguageModel, groups: int, lanes: int) -> None:
        self.vlm, self.groups, self.lanes = vlm, groups, lanes
        self.rows = groups * lanes
        config, device = vlm.decoder.config, vlm.device
        self.n_layers = vlm.n_layers
        self._embed = vlm.hf_model.get_input_embeddings()
        self._head = vlm.hf_model.get_output_embeddings()
        heads = config.num_attention_heads

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(self.n_layers, *shape, vlm.head_dim, dtype=vlm.dtype, device=device)

        kv_heads = config.num_key_value_heads
        self.prefix_keys, self.prefix_values = (zeros(groups, kv_heads, 0) for _ in range(2))
        self.suffix_keys, self.suffix_values = (zeros(self.rows, kv_heads, _SLOTS) for _ in range(2))
        self.last_keys, self.last_values = (zeros(self.rows, kv_heads) for _ in range(2))
        """What stands in the suffix slot before :attr:`slots`, smoothed."""
        self.prefix_outputs = zeros(groups, heads)
        self.prefix_lengths = torch.ones(groups, dtype=torch.long, device=device)
        """Prompt tokens that are read as prefix: all but the last, which opens the suffix of each row."""
        self.prefix_width = 1
        self._first_tokens = torch.zeros(groups, dtype=torch.long, device=device)
        self._next_positions = torch.zeros(groups, dtype=torch.long, device=device)
        self.all_rows = torch.arange(self.rows, device=device)
        self.slots = torch.ones(self.rows, dtype=torch.long, device=device)
        """The suffix slot that each row's next token takes."""
        self._host_slots = np.ones(self.rows, dtype=int)
        self._tokens = torch.zeros_like(self.slots)
        self._positions = torch.zeros_like(self.slots)
        self.states: dict[type[Method], RowState] = {}

    def load(self, group: int, prefix: Prefix) -> None:
        """Put another image into ``group``; its lanes must be free."""
        self.prefix_keys = _grown(self.prefix_keys, prefix.length)
        self.prefix_values = _grown(self.prefix_values, prefix.length)
        self.prefix_keys[:, group, :, : prefix.length] = prefix.keys
        self.prefix_values[:, group, :, : prefix.length] = prefix.values
        self.prefix_outputs[:, group] = prefix.outputs
        self.prefix_lengths[group] = prefix.length - 1
        self.prefix_width = int(self.prefix_lengths.max())
        self._first_tokens[group] = prefix.first_token
        self._next_positions[group] = prefix.next_position

    def start(self, rows: Sequence[int], methods: Sequence[Method | None]) -> list[int]:
        """Begin a caption in each of ``rows``, each with its method.

        Returns
        -------
        list of int
            The first token of each, which the prefill has given.
        """
        index = torch.tensor(list(rows), device=self.vlm.device)
        group = index // self.lanes
        last = self.prefix_lengths[group]
        self.last_keys[:, index] = self.prefix_keys[:, group, :, last].transpose(0, 1)
        self.last_values[:, index] = self.prefix_values[:, group, :, last].transpose(0, 1)
        self.suffix_keys[:, index, :, 0] = self.last_keys[:, index]
        self.suffix_values[:, index, :, 0] = self.last_values[:, index]
        self._tokens[index] = self._first_tokens[group]
        self._positions[index] = self._next_positions[group]
        self.slots[index] = 1
        self._host_slots[list(rows)] = 1
        for kind in {type(method) for method in methods if method is not None} - set(self.states):
            self.states[kind] = kind.row_state(self.rows, self.n_layers, self.vlm.device)
        for kind, state in self.states.items():
            state.set_rows(rows, [method if type(method) is kind else None for method in methods])
            if state.smooths_output:
                for layer in range(self.n_layers):
                    state.start_outputs(rows, layer, self.prefix_outputs[layer, group])
        return self._tokens[index].tolist()

    def shrunk(self, rows: Sequence[int]) -> Grid:
        """A grid of these rows alone, each a group of one lane: for the end of a run, when few captions are left."""
        index = torch.tensor(list(rows), device=self.vlm.device)
        group = index // self.lanes
        other = copy.copy(self)
        other.groups = other.rows = len(rows)
        other.lanes = 1
        for name in ("prefix_keys", "prefix_values", "prefix_outputs"):
            setattr(other, name, getattr(self, name)[:, group])
        for name in ("suffix_keys", "suffix_values", "last_keys", "last_values"):
            setattr(other, name, getattr(self, name)[:, index])
        for name in ("prefix_lengths", "_first_tokens", "_next_positions"):
            setattr(other, name, getattr(self, name)[group])
        for name in ("slots", "_tokens", "_positions"):
            setattr(other, name, getattr(self, name)[index])
        other.all_rows = torch.arange(len(rows), device=self.vlm.device)
        other._host_slots = self._host_slots[list(rows)]
        for state in self.states.values():
            state.reorder(index)
        return other

    def step(self, running: np.ndarray) -> Tensor:
        """Decode one token in every row; only those of ``running`` (row numbers) need be right.

        Returns
        -------
        Tensor
            [rows], the tokens that come next.
        """
        spans = self._spans(running)
        if spans.live == self.suffix_keys.shape[3]:
            self.suffix_keys = _grown(self.suffix_keys, 2 * spans.live)
            self.suffix_values = _grown(self.suffix_values, 2 * spans.live)
        step = _GridStep(self, spans)
        hidden = self.vlm.decoder(
            inputs_embeds=self._embed(self._tokens)[:, None],
            position_ids=self._positions[:, None],
            past_key_values=_PassThrough(),
            use_cache=True,
            kvtune_grid=step,
        ).last_hidden_state
        self._tokens = self._head(hidden[:, 0]).argmax(-1)
        self._append(step)
        self._positions += 1
        self._host_slots[running] += 1
        return self._tokens

    def _spans(self, running: np.ndarray) -> _Spans:
        """Which suffix slots to read: of each group as many as its longest running row has filled.

        Neighbours of similar length are read together. On a GPU everything is, for there many small products cost more
        than reading too much.
        """
        filled = np.zeros((self.groups, self.lanes), dtype=int)
        filled.flat[running] = self._host_slots[running]
        longest = filled.max(axis=1)
        live = int(longest.max())
        if self.vlm.device.type != "cpu":
            return _Spans(live, [(0, self.rows, live)])
        spans: list[tuple[int, int, int]] = []
        for group, length in enumerate(longest.tolist()):
            first, last = group * self.lanes, (group + 1) * self.lanes
            if spans and min(spans[-1][2], length) >= 0.8 * max(spans[-1][2], length):
                spans[-1] = spans[-1][0], last, max(spans[-1][2], length)
            else:
                spans.append((first, last, length))
        return _Spans(live, [span for span in spans if span[2]])

    def _append(self, step: _GridStep) -> None:
        """Smooth the step's keys and values, in all layers at once, and put them into the suffix."""
        keys, values = torch.stack(step.keys), torch.stack(step.values)  # [layers, rows, kv_heads, head_dim]
        for state in self.states.values():
            if state.layers:
                layers = slice(state.layers.start, state.layers.stop)
                on_keys, on_values = state.factors(torch.stack([step.entropies[layer] for layer in state.layers]))
                lerp_(keys[layers], self.last_keys[layers], on_keys[..., None, None])
                lerp_(values[layers], self.last_values[layers], on_values[..., None, None])
        self.last_keys, self.last_values = keys, values
        # Rows that are not running may have come to the end of the suffix; they stay in its last slot.
        slots = self.slots.clamp(max=self.suffix_keys.shape[3] - 1)[:, None, None, None]
        slots = slots.expand(self.n_layers, *keys.shape[1:3], 1, keys.shape[3])
        self.suffix_keys.scatter_(3, slots, keys[..., None, :])
        self.suffix_values.scatter_(3, slots, values[..., None, :])
        self.slots += 1


@dataclasses.dataclass(frozen=True)
class _Spans:
    """What of the suffix is read.

    Attributes
    ----------
    live
        Slots of the longest span.
    spans
        (first row, last row + 1, slots), rows outside any span read nothing.
    """

    live: int
    spans: list[tuple[int, int, int]]


class _GridStep:
    """One decode step, as the attention function of each layer sees it."""

    def __init__(self, grid: Grid, spans: _Spans) -> None:
        self.grid, self.spans = grid, spans
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.entropies: dict[int, Tensor] = {}
        self.looked_at = {layer for state in grid.states.values() for layer in state.layers}
        self.on_output = [state for state in grid.states.values() if state.smooths_output]
        # [rows, 1, 1, prefix + live + 1], added to scores: prefix positions, suffix slots, the new token itself
        device, never = grid.slots.device, torch.finfo(grid.vlm.dtype).min / 2
        prefix = torch.arange(grid.prefix_width, device=device) >= grid.prefix_lengths[:, None]
        suffix = torch.arange(spans.live, device=device) >= grid.slots[:, None]
        hidden = torch.cat([prefix.repeat_interleave(grid.lanes, 0), suffix, suffix.new_zeros(grid.rows, 1)], dim=1)
        self.mask = hidden.to(grid.vlm.dtype)[:, None, None] * never

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer over prefix and suffix, joined by one softmax.

        Parameters
        ----------
        query
            [rows, heads, 1, head_dim].
        key, value
            [rows, kv_heads, 1, head_dim], of the new token.

        Returns
        -------
        Tensor
            [rows, 1, heads, head_dim].
        """
        grid = self.grid
        rows, heads, _, head_dim = query.shape
        kv_heads, width = key.shape[1], grid.prefix_width
        share = heads // kv_heads
        self.keys.append(key[:, :, 0])
        self.values.append(value[:, :, 0])
        query = query.view(rows, kv_heads, share, head_dim) * scaling
        suffix_keys, suffix_values = grid.suffix_keys[layer], grid.suffix_values[layer]

        scores = self.mask.expand(rows, kv_heads, share, -1).contiguous()
        to_prefix = torch.matmul(self._by_group(query), grid.prefix_keys[layer, :, :, :width].transpose(2, 3))
        scores[..., :width] += self._by_row(to_prefix)
        for first, last, slots in self.spans.spans:
            to_suffix = torch.matmul(query[first:last], suffix_keys[first:last, :, :slots].transpose(2, 3))
            scores[first:last, ..., width : width + slots] += to_suffix
        scores[..., -1] = torch.linalg.vecdot(query, key)

        weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if layer in self.looked_at:
            literal = weights.dtype == torch.float64
            self.entropies[layer] = row_entropy(weights) if literal else row_entropy_from_scores(scores, weights)
        weights = weights.to(query.dtype)

        output = weights[..., -1:] * value
        output += self._by_row(
            torch.matmul(self._by_group(weights[..., :width]), grid.prefix_values[layer, :, :, :width])
        )
        for first, last, slots in self.spans.spans:
            on_suffix = weights[first:last, ..., width : width + slots]
            output[first:last] += torch.matmul(on_suffix, suffix_values[first:last, :, :slots])
        output = output.view(rows, heads, head_dim)
        for state in self.on_output:
            if layer in state.layers:
                output = state.smooth_output(layer, self.entropies[layer], output)
        return output[:, None]

    def _by_group(self, rows: Tensor) -> Tensor:
        """[rows, kv_heads, share, n] as [groups, kv_heads, lanes * share, n]: one product a group."""
        _, kv_heads, share, size = rows.shape
        grid = self.grid
        grouped = rows.reshape(grid.groups, grid.lanes, kv_heads, share, size).transpose(1, 2)
        return grouped.reshape(grid.groups, kv_heads, grid.lanes * share, size)

    def _by_row(self, groups: Tensor) -> Tensor:
        """The way back from :meth:`_by_group`."""
        _, kv_heads, _, size = groups.shape
        grid = self.grid
        rows = groups.view(grid.groups, kv_heads, grid.lanes, -1, size).transpose(1, 2)
        return rows.reshape(grid.rows, kv_heads, -1, size)


def _grown(cache: Tensor, positions: int) -> Tensor:
    """``cache`` with room for at least ``positions`` on its last axis but one."""
    missing = positions - cache.shape[-2]
    return torch.nn.functional.pad(cache, (0, 0, 0, missing)) if missing > 0 else cache


class _PassThrough(Cache):
    """Stands in for a cache in a grid step: the grid keeps keys and values itself."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key_states: Tensor, value_states: Tensor, *arguments: Any, **keywords: Any) -> Any:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    kvtune_grid: _GridStep | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    if kvtune_grid is None:  # a prefill
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **keywords)
    return kvtune_grid.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
