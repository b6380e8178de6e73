"""What a grid on a CPU holds: prefixes of images, suffixes of rows, and who is where.

Row ``group * lanes + lane`` decodes one caption. What an image's prompt left in the KV cache is held once a group and
read by all its lanes as one matrix product; what a row has generated is its own. A row's suffix starts with a copy of
the last prompt token, so that the position before any generated token is always the one before in the suffix.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.prefix import Prefix
from kvtune.methods import Method, RowState
from kvtune.models import VisionLanguageModel

SLOTS = 128
"""Suffix slots that a grid starts with unless told; they are doubled when a caption grows beyond."""


class GridCache:
    """Tensors of ``groups`` images by ``lanes`` captions each.

    Prefix tensors are [layers, groups, kv_heads, prompt tokens, head_dim], suffix tensors
    [layers, rows, kv_heads, slots, head_dim]; both grow when a longer prompt or caption comes.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        groups: int,
        lanes: int,
        prompt_tokens: int = 0,
        slots: int = SLOTS,
    ) -> None:
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
        self.prefix_keys, self.prefix_values = (zeros(groups, kv_heads, prompt_tokens) for _ in range(2))
        self.suffix_keys, self.suffix_values = (zeros(self.rows, kv_heads, slots) for _ in range(2))
        self.new_keys, self.new_values = (zeros(self.rows, kv_heads) for _ in range(2))
        """The step's own keys and values, as computed and then smoothed."""
        self.last_keys, self.last_values = (zeros(self.rows, kv_heads) for _ in range(2))
        """Those of the step before, smoothed."""
        self.prefix_outputs = zeros(groups, heads)
        self.prefix_lengths = torch.ones(groups, dtype=torch.long, device=device)
        """Prompt tokens that are read as prefix: all but the last, which opens the suffix of each row."""
        self.prefix_hidden: Tensor | None = None
        """Added to scores where groups differ in length, [groups, 1, 1, prefix_width]."""
        self._host_prefix_lengths = np.zeros(groups, dtype=int)
        self._first_tokens = np.zeros(groups, dtype=int)
        self._next_positions = np.zeros(groups, dtype=int)
        self.slots = torch.ones(self.rows, dtype=torch.long, device=device)
        """The suffix slot that each row's next token takes."""
        self._host_slots = np.ones(self.rows, dtype=int)
        self._tokens = torch.zeros_like(self.slots)
        self._positions = torch.zeros_like(self.slots)
        self.states: dict[type[Method], RowState] = {}

    @property
    def prefix_width(self) -> int:
        """Prefix positions that are read: those of the longest group."""
        return max(1, int(self._host_prefix_lengths.max()))

    def load(self, group: int, prefix: Prefix) -> None:
        """Put another image into ``group``; its lanes must be free."""
        self.prefix_keys = grown(self.prefix_keys, prefix.length)
        self.prefix_values = grown(self.prefix_values, prefix.length)
        self.prefix_keys[:, group, :, : prefix.length] = prefix.keys
        self.prefix_values[:, group, :, : prefix.length] = prefix.values
        self.prefix_outputs[:, group] = prefix.end.outputs
        self.prefix_lengths[group] = self._host_prefix_lengths[group] = prefix.length - 1
        self._first_tokens[group] = prefix.end.first_token
        self._next_positions[group] = prefix.end.next_position
        self._hide_missing_positions()

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int]:
        """Begin a caption in each of ``rows``, each about one of the images, its group's, and with its method.

        Returns
        -------
        list of int
            The first token of each, which the prefill has given.
        """
        host_rows = np.array(rows)
        host_group = np.array(images)
        index, group = self._to_device(host_rows), self._to_device(host_group)
        last = self.prefix_lengths[group]
        for prefix, suffix, before in (
            (self.prefix_keys, self.suffix_keys, self.last_keys),
            (self.prefix_values, self.suffix_values, self.last_values),
        ):
            before[:, index] = prefix[:, group, :, last].transpose(0, 1)
            suffix[:, index, :, 0] = before[:, index]
        self._tokens[index] = self._to_device(self._first_tokens[host_group])
        self._positions[index] = self._to_device(self._next_positions[host_group])
        self.slots[index] = 1
        self._host_slots[host_rows] = 1
        for kind in {type(method) for method in methods if method is not None} - set(self.states):
            self.states[kind] = kind.row_state(self.rows, self.n_layers, self.vlm.device)
        for kind, state in self.states.items():
            state.set_rows(rows, [method if type(method) is kind else None for method in methods])
            if state.smooths_output:
                for layer in range(self.n_layers):
                    state.start_outputs(index, layer, self.prefix_outputs[layer, group])
        return self._first_tokens[host_group].tolist()

    def packed(self, groups: Sequence[Sequence[int]], lanes: int) -> Self:
        """A grid of these rows alone, those of each group on at most ``lanes`` lanes of one image.

        For the end of a run, when few captions are left.
        """
        host_rows = np.array([[*rows, *[rows[0]] * (lanes - len(rows))] for rows in groups]).flatten()
        host_group = host_rows[::lanes] // self.lanes
        index, group = self._to_device(host_rows), self._to_device(host_group)
        other = copy.copy(self)
        other.groups, other.rows, other.lanes = len(groups), len(host_rows), lanes
        for name in ("prefix_keys", "prefix_values", "prefix_outputs"):
            setattr(other, name, getattr(self, name)[:, group])
        for name in ("suffix_keys", "suffix_values", "new_keys", "new_values", "last_keys", "last_values"):
            setattr(other, name, getattr(self, name)[:, index])
        for name in ("slots", "_tokens", "_positions"):
            setattr(other, name, getattr(self, name)[index])
        other.prefix_lengths = self.prefix_lengths[group]
        for name in ("_host_prefix_lengths", "_first_tokens", "_next_positions"):
            setattr(other, name, getattr(self, name)[host_group])
        other._host_slots = self._host_slots[host_rows]
        other._hide_missing_positions()
        for state in self.states.values():
            state.reorder(index)
        return other

    def _hide_missing_positions(self) -> None:
        """Keep the scores of positions that a shorter prefix does not have out of the softmax."""
        width = self.prefix_width
        loaded = self._host_prefix_lengths[self._host_prefix_lengths > 0]
        if (loaded == width).all():
            self.prefix_hidden = None
            return
        positions = torch.arange(width, device=self.vlm.device)
        self.prefix_hidden = self.hides(positions >= self.prefix_lengths[:, None])[:, None, None]

    def hides(self, hidden: Tensor) -> Tensor:
        """What is added to scores so that positions where ``hidden`` is true are not seen."""
        return hidden.to(self.vlm.dtype) * (torch.finfo(self.vlm.dtype).min / 2)

    def _to_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).to(self.vlm.device)


def grown(cache: Tensor, positions: int) -> Tensor:
    """``cache`` with room for at least ``positions`` on its last axis but one."""
    missing = positions - cache.shape[-2]
    return torch.nn.functional.pad(cache, (0, 0, 0, missing)) if missing > 0 else cache
