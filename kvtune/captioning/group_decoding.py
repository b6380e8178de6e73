"""Decoding on a CPU: images by lanes, and at the end a smaller grid of what is left."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from kvtune.captioning.cost_model import CPU
from kvtune.captioning.decoding import IDLE, Decoding, PromptsOf
from kvtune.captioning.grid import Grid
from kvtune.captioning.memory import PREFILL_BATCH, GridPlan
from kvtune.captioning.request import Caption, CaptionRequest
from kvtune.captioning.scheduler import Placement, Scheduler, packing
from kvtune.models import VisionLanguageModel


class GroupDecoding(Decoding):
    """See :class:`kvtune.captioning.decoding.Decoding`."""

    price = CPU

    def __init__(
        self,
        vlm: VisionLanguageModel,
        prompts_of: PromptsOf,
        max_new_tokens: int,
        plan: GridPlan,
    ) -> None:
        super().__init__(vlm, prompts_of, max_new_tokens, plan.rows, late=0)
        self.scheduler: Scheduler[CaptionRequest] = Scheduler(plan.groups, plan.lanes)
        self.grid: Grid = Grid(vlm, plan.groups, plan.lanes, plan.prompt_tokens, plan.slots)

    def shrink(self, done: list[Caption]) -> None:
        found = self._packing()
        if found is None:
            return
        groups, lanes = found
        rows = [[placement.row for placement in group] for group in groups]
        # Lanes that stay empty become what the first one is.
        order = np.array([row for own in rows for row in own + own[:1] * (lanes - len(own))])
        self.scheduler = self.scheduler.packed(groups, lanes)
        with torch.inference_mode():
            self.grid = self.grid.packed(order, lanes)
        self._texts.move(order)
        self.requests = {
            group * lanes + lane: self.requests[row] for group, own in enumerate(rows) for lane, row in enumerate(own)
        }

    def _packing(self) -> tuple[list[Sequence[Placement[CaptionRequest]]], int] | None:
        """Groups and lanes of a smaller grid for what is left; None if nothing is, or too much."""
        most = int((1 - IDLE) * self.grid.rows)
        if not 0 < len(self.requests) <= most:
            return None

        # Side by side with those of their length, rows are read together, and no further than need be.
        def length(placement: Placement[CaptionRequest]) -> int:
            return int(self._texts.lengths[placement.row])

        images = [sorted(image, key=length) for image in self.scheduler.of_one_image()]
        groups, lanes = packing(images, self.grid.lanes, len(self.scheduler.groups))
        if len(groups) * lanes > most:
            return None
        return sorted(groups, key=lambda group: length(group[-1])), lanes

    def _cost(self, rows: np.ndarray) -> float:
        longest = np.zeros(self.grid.groups, dtype=int)
        np.maximum.at(longest, rows // self.grid.lanes, self._texts.lengths[rows] + 1)
        return self.price.of(self.grid.rows, int(np.count_nonzero(longest)), int(longest.sum()) * self.grid.lanes)

    def _load(
        self, loads: dict[int, Hashable], starts: list[Placement[CaptionRequest]]
    ) -> list[Placement[CaptionRequest]]:
        request_of = {placement.image: placement.request for placement in starts}
        groups_of: dict[Hashable, list[int]] = {}
        for group, key in loads.items():
            groups_of.setdefault(key, []).append(group)
        images = list(groups_of.values())
        for begin in range(0, len(images), PREFILL_BATCH):
            batch = images[begin : begin + PREFILL_BATCH]
            requests = [request_of[copies[0]] for copies in batch]
            prompts = self.prompts_of(requests)
            prefixes = self._prefixes(requests, prompts)
            for copies, prefix in zip(batch, prefixes, strict=True):
                for group in copies:
                    self.grid.load(group, prefix)
            self._ran_prompts([prompt.length for prompt in prompts])
        return starts
