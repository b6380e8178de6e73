"""What a grid on a CPU holds: prefixes of images, suffixes of rows, and who is where.

Row ``group * lanes + lane`` decodes one caption. What an image's prompt left in the KV cache is held once a group and
read by all its lanes as one matrix product; what a row has generated is its own. A row's suffix starts with a copy of
the last prompt token, so that the position before any generated token is always the one before in the suffix; or with
the prompt tokens that the row runs itself, because a method acts on them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.forced import ForcedTokens
from kvtune.captioning.memory import PLANNED_SLOTS, bytes_per_position
from kvtune.captioning.prefill import decoder_of
from kvtune.captioning.prefix import KnownPrompts, Prefix
from kvtune.methods import Method
from kvtune.methods.row_methods import RowMethods
from kvtune.methods.seen import position_classes
from kvtune.models import VisionLanguageModel


class GridCache(KnownPrompts):
    """Tensors of ``groups`` images by ``lanes`` captions each.

    Prefix tensors are [layers, groups, kv_heads, prompt tokens, head_dim], suffix tensors
    [layers, rows, kv_heads, slots, head_dim]; both grow when a longer prompt or caption comes. ``tokens`` are [rows],
    the newest of each; a step, or a start, overwrites them.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        groups: int,
        lanes: int,
        prompt_tokens: int = 0,
        slots: int = PLANNED_SLOTS,
    ) -> None:
        super().__init__()
        self.vlm, self.groups, self.lanes = vlm, groups, lanes
        self.rows = groups * lanes
        device, kv_heads = vlm.device, vlm.heads.kv_heads
        self.n_layers = vlm.n_layers
        self._slot_bytes = bytes_per_position(vlm) // vlm.n_layers
        self._embed = vlm.hf_model.get_input_embeddings()
        self._head = vlm.hf_model.get_output_embeddings()

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(self.n_layers, *shape, vlm.head_dim, dtype=vlm.dtype, device=device)

        self.prefix_keys, self.prefix_values = (zeros(groups, kv_heads, prompt_tokens) for _ in range(2))
        self.suffix_keys, self.suffix_values = (zeros(self.rows, kv_heads, slots) for _ in range(2))
        self.new_keys, self.new_values = (zeros(self.rows, kv_heads) for _ in range(2))
        """The step's own keys and values, as computed and then smoothed."""
        self.last_keys, self.last_values = (zeros(self.rows, kv_heads) for _ in range(2))
        """Those of the step before, smoothed."""
        self.prefix_hidden: Tensor | None = None
        """Added to scores of prompt tokens that rows do not read there, [rows, 1, 1, prefix_width]; None: they read
        all."""
        self.classes = torch.zeros(3, groups, prompt_tokens, dtype=torch.bool, device=device)
        """Which prompt tokens are before, of and after the image."""
        self.read = np.zeros(self.rows, dtype=int)
        """Prompt tokens that each row reads as prefix: but for the last, or those that it runs itself."""
        self.slots = torch.ones(self.rows, dtype=torch.long, device=device)
        """The suffix slot that each row's next token takes."""
        self.host_slots = np.ones(self.rows, dtype=int)
        self.tokens = torch.zeros_like(self.slots)
        self._positions = torch.zeros_like(self.slots)
        self.forced = ForcedTokens(self.rows)
        self.methods = RowMethods(self.rows, decoder_of(vlm), device)

    @property
    def prefix_width(self) -> int:
        """Prefix positions that are read: those of the longest group."""
        return max([1, *(prompt.length - 1 for prompt in self._prompts.values())])

    def load(self, group: int, prefix: Prefix) -> None:
        """Put another image into ``group``; its lanes must be free."""
        self.prefix_keys = grown(self.prefix_keys, prefix.length)
        self.prefix_values = grown(self.prefix_values, prefix.length)
        self.prefix_keys[:, group, :, : prefix.length] = prefix.keys[0]
        self.prefix_values[:, group, :, : prefix.length] = prefix.values[0]
        self._prompts[group] = prefix.end
        self.classes = torch.nn.functional.pad(self.classes, (0, max(0, prefix.length - self.classes.shape[2])))
        self.classes[:, group] = False
        self.classes[:, group, : prefix.length] = position_classes(prefix.end.facts.visual)
        self.read[group * self.lanes : (group + 1) * self.lanes] = prefix.length - 1
        self._hide_missing_positions()

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int]:
        """Begin a caption in each of ``rows``, each about one of the images, its group's, and with its method.

        Returns
        -------
        list
            Those of ``rows`` whose first token the prefill has given; where the method acts on the prompt, the row runs
            the end of it itself.
        """
        prompts = [self._prompts[image] for image in images]
        forced = [prompt.forced(method) for prompt, method in zip(prompts, methods, strict=True)]
        host_rows = np.array(rows)
        for row, prompt, ids in zip(rows, prompts, forced, strict=True):
            self.forced.start(row, ids)
            self.read[row] = prompt.length - max(1, len(ids))
            self.host_slots[row] = 0 if ids else 1
        index, group = self._to_device(host_rows), self._to_device(np.array(images))
        last = self._to_device(np.array([prompt.length - 1 for prompt in prompts]))
        for prefix, suffix, before in (
            (self.prefix_keys, self.suffix_keys, self.last_keys),
            (self.prefix_values, self.suffix_values, self.last_values),
        ):
            before[:, index] = prefix[:, group, :, last].transpose(0, 1)
            suffix[:, index, :, 0] = before[:, index]
        self.tokens[index] = torch.stack([prompt.first_token for prompt in prompts])
        begins = [prompt.next_position - len(ids) for prompt, ids in zip(prompts, forced, strict=True)]
        self._positions[index] = self._to_device(np.array(begins))
        self.slots[index] = self._to_device(self.host_slots[host_rows])
        self.methods.start(rows, methods, [prompt.facts for prompt in prompts])
        self._hide_missing_positions()
        return [row for row, ids in zip(rows, forced, strict=True) if not ids]

    def packed(self, order: np.ndarray, lanes: int) -> Self:
        """A grid whose row ``i`` is what row ``order[i]`` was, ``lanes`` side by side of one image.

        For the end of a run, when few captions are left.
        """
        host_group = order[::lanes] // self.lanes
        index, group = self._to_device(order), self._to_device(host_group)
        other = copy.copy(self)
        other.groups, other.rows, other.lanes = len(host_group), len(order), lanes
        for name in ("prefix_keys", "prefix_values", "classes"):
            setattr(other, name, getattr(self, name)[:, group])
        for name in ("suffix_keys", "suffix_values", "new_keys", "new_values", "last_keys", "last_values"):
            setattr(other, name, getattr(self, name)[:, index])
        for name in ("slots", "tokens", "_positions"):
            setattr(other, name, getattr(self, name)[index])
        for name in ("host_slots", "read"):
            setattr(other, name, getattr(self, name)[order])
        other._prompts = {group: self._prompts[one] for group, one in enumerate(host_group.tolist())}
        other.forced.move(order)
        other.methods.move(order, index)
        other._hide_missing_positions()
        return other

    def _hide_missing_positions(self) -> None:
        """Keep the scores of prompt tokens that a row does not read out of the softmax."""
        width = self.prefix_width
        if (self.read[self.read > 0] == width).all():
            self.prefix_hidden = None
            return
        beyond = np.arange(width) >= np.maximum(self.read, 1)[:, None]
        self.prefix_hidden = self.hides(self._to_device(beyond))[:, None, None]

    def hides(self, hidden: Tensor) -> Tensor:
        """What is added to scores so that positions where ``hidden`` is true are not seen."""
        return hidden.to(self.vlm.dtype) * (torch.finfo(self.vlm.dtype).min / 2)

    def _to_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).to(self.vlm.device)


def grown(cache: Tensor, positions: int) -> Tensor:
    """``cache`` with room for at least ``positions`` on its last axis but one."""
    missing = positions - cache.shape[-2]
    return torch.nn.functional.pad(cache, (0, 0, 0, missing)) if missing > 0 else cache
