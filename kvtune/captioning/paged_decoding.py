"""Decoding on a GPU: any image in any row, with pages that are taken as captions grow and given back as they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise

import numpy as np
import torch

from kvtune.captioning.continuous import ContinuousScheduler
from kvtune.captioning.cost_model import GPU
from kvtune.captioning.decoding import IDLE, Decoding, PromptsOf, on_device
from kvtune.captioning.fused import FusedLayers
from kvtune.captioning.memory import PREFILL_BATCH
from kvtune.captioning.page_demand import PageDemand
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.captioning.paged_plan import USUAL_TOKENS, PagedPlan
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.captioning.request import Caption, CaptionRequest
from kvtune.captioning.scheduler import Placement
from kvtune.errors import KvtuneError
from kvtune.models import VisionLanguageModel

NO_ROOM = "out of device memory with a single caption on the grid; free memory or use a smaller dtype"

_TOKEN = 2
"""What a token of a caption costs, in tokens of a prompt, by :data:`kvtune.captioning.cost_model.GPU`."""


class PagedDecoding(Decoding):
    """See :class:`kvtune.captioning.decoding.Decoding`."""

    price = GPU

    def __init__(
        self,
        vlm: VisionLanguageModel,
        prompts_of: PromptsOf,
        max_new_tokens: int,
        plan: PagedPlan,
        fused: FusedLayers,
        cuda_graphs: bool = True,
        grid: PagedGrid | None = None,
    ) -> None:
        super().__init__(vlm, prompts_of, max_new_tokens, plan.rows, late=1)
        with on_device(vlm.device):
            self.grid: PagedGrid = grid or PagedGrid(vlm, plan, cuda_graphs)
        self.together = plan.together
        most = plan.text_pages
        self._demand = PageDemand(most, min(most, pages_for(USUAL_TOKENS + 1)))
        self.scheduler: ContinuousScheduler[CaptionRequest] = ContinuousScheduler(
            plan.rows,
            self.grid.pages,
            self._demand,
            pages_for(plan.prompt_tokens),
            plan.together(plan.prompt_tokens),
            plan.images,
        )
        self._fused = fused
        self._latest = deque([plan.prompt_tokens], maxlen=2 * PREFILL_BATCH)
        """Lengths of the prompts that came last."""
        self.expect: Callable[[Sequence[CaptionRequest]], None] = lambda requests: None
        """Told whose images are expected next."""
        self._expected: list[Hashable] = []

    def shrink(self, done: list[Caption]) -> None:
        if not self._worth_moving():
            return
        with torch.inference_mode(), on_device(self.vlm.device):
            self._read(done, 0)  # what has not been looked at goes by the numbers that rows have now
            if not self._worth_moving():
                return
            running = np.sort(np.fromiter(self.requests, dtype=int))
            order = np.concatenate([running, np.setdiff1d(np.arange(self.grid.rows), running)])
            self.grid.move(order)
            self.scheduler.move(order.tolist())
            self.requests = {place: self.requests[row] for place, row in enumerate(running.tolist())}
            self._texts.move(order)

    def _worth_moving(self) -> bool:
        """Whether a step would be narrower by a share of :data:`IDLE` if its rows stood side by side."""
        if not self.requests:
            return False
        running = np.fromiter(self.requests, dtype=int)
        return self.grid.width(running, moved=True) <= (1 - IDLE) * self.grid.width(running)

    def _cost(self, rows: np.ndarray) -> float:
        return self.price.of(self.grid.width(rows), self.scheduler.images, int(self._texts.lengths[rows].sum()))

    def _load(
        self, loads: dict[int, Hashable], starts: list[Placement[CaptionRequest]]
    ) -> list[Placement[CaptionRequest]]:
        needed = {placement.image: placement.request for placement in reversed(starts)}
        ahead = {image: self.scheduler.next_of(key) for image, key in loads.items() if image not in needed}
        request_of = needed | ahead
        refused: set[int] = set()
        promised = sum(placement.image not in loads for placement in starts)
        for batch, after in pairwise([*self._batches(loads), []]):
            prompts = self.prompts_of([request_of[image] for image in batch])
            self._expect({loads[image]: request_of[image] for image in after} or self.scheduler.next_due())
            fits = {}
            for image, prompt in zip(batch, prompts, strict=True):
                if image in ahead:
                    fits[image] = self._reserve_ahead(image, prompt.length, len(starts))
                else:
                    fits[image] = self._reserve(image, prompt.length, promised + 1)
                    promised += fits[image]
            self._expect_prompts_of(prompt.length for prompt in prompts)
            refused.update(image for image, fit in fits.items() if not fit)
            batch = [image for image in batch if fits[image]]
            if batch:
                prompts = [prompt for prompt, fit in zip(prompts, fits.values(), strict=True) if fit]
                requests = [request_of[image] for image in batch]
                for image, prefix in zip(batch, self._prefixes(requests, prompts), strict=True):
                    self.grid.load(image, prefix)
                del prefix  # as large as the prompts that come next may find room for
                self._ran_prompts([prompt.length for prompt in prompts])
        fitting = [placement for placement in starts if placement.image not in refused]
        begun = fitting[: self.grid.pages.free]
        rows = {placement.row for placement in begun}
        for placement in reversed(starts):
            if placement.row not in rows:
                self.scheduler.put_back(placement.row)
        for image in refused:
            self.scheduler.forget(image)
        if not begun and not self.requests:
            raise KvtuneError(NO_ROOM)
        return begun

    def _expect_prompts_of(self, lengths: Iterable[int]) -> None:
        """The next prompts may be as long as any of the latest."""
        self._latest.extend(lengths)
        longest = max(self._latest)
        self.scheduler.prompt_pages = pages_for(longest)
        self.scheduler.together = self.together(longest)

    def _batches(self, loads: dict[int, Hashable]) -> list[list[int]]:
        """Images whose prompts are run together; those that were expected are one batch."""
        images = list(loads)
        first = len(self._expected)
        if [loads[image] for image in images[:first]] != self._expected:
            first = 0
        together = self.scheduler.together
        begins = range(first, len(images), together)
        return [images[:first]] * (first > 0) + [images[begin : begin + together] for begin in begins]

    def _expect(self, requests: dict[Hashable, CaptionRequest]) -> None:
        self._expected = list(requests)
        self.expect(list(requests.values()))

    def _layers(self) -> AbstractContextManager[object]:
        return self._fused.applied()

    def _reserve(self, image: int, length: int, promised: int) -> bool:
        """Take a prompt's pages, if need be those of prompts that nobody reads; False unless ``promised`` are left."""
        while pages_for(length) + promised > self.grid.pages.free:
            if not self.scheduler.evict():
                return False
        self.grid.reserve(image, length)
        return True

    def _reserve_ahead(self, image: int, length: int, wanted: int) -> bool:
        """Take a prompt's pages if so many are left then, and nothing else must give way."""
        fits = pages_for(length) + wanted <= self.grid.pages.free
        if fits:
            self.grid.reserve(image, length)
        return fits

    def _make_room(self) -> None:
        while self.requests:
            outgrown = self.grid.outgrown(np.fromiter(self.requests, dtype=int))
            missing = len(outgrown) - self.grid.pages.free
            if missing <= 0:
                break
            if self.scheduler.evict(spared=self.scheduler.ahead):
                continue
            # Captions become longer than was expected; the youngest give way, or a prompt that was run ahead.
            youngest = sorted(self.requests, key=lambda row: (self.grid.newest[row], -row))
            giving_way = youngest[: min(missing, len(youngest) - 1)]
            written = int(self.grid.newest[giving_way].sum())
            if (not giving_way or written * _TOKEN > self.scheduler.prompt_pages * PAGE) and self.scheduler.evict():
                continue
            if not giving_way:
                raise KvtuneError(NO_ROOM)
            for row in giving_way:
                self.scheduler.put_back(row)
                self._drop(row)
        else:
            return
        for row in outgrown.tolist():
            self._demand.goes_on(len(self.grid.pages.of(("row", row))))
            self.grid.grow(row)

    def _drop(self, row: int) -> None:
        super()._drop(row)
        self.grid.release(row)

    def _end(self, row: int) -> None:
        self._demand.ends(len(self.grid.pages.of(("row", row))))
        super()._end(row)
