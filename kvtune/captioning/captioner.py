"""The engine's loop: requests are placed on the grid, the grid steps, captions leave."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from kvtune.captioning.grid import Grid
from kvtune.captioning.images import ImageKeys
from kvtune.captioning.late import HostCopy, Unread
from kvtune.captioning.memory import MOST_ROWS, PREFILL_BATCH, GridPlan, Lanes, is_out_of_memory, plan_grid
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prompts import Prompt, Prompts
from kvtune.captioning.request import Caption, CaptionRequest, cut
from kvtune.captioning.scheduler import Placement, Scheduler, packing
from kvtune.captioning.step import ATTENTION
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods.attach import attention_implementation
from kvtune.models import VisionLanguageModel

_LOOK_AHEAD = 512
"""Requests that wait for a lane, enough for those of one image to find each other; more where the grid is larger, so
that it can be filled with half of what each image has."""

_IDLE = 1 / 3
"""Share of the lanes that must be idle at the end of a run before what is left moves to a smaller grid."""

_LATE = {"cuda": 1}
"""Steps that are launched before a step's tokens are looked at, so that the device need not wait for the host."""

_NO_ROOM = "out of device memory with a single caption on the grid; free memory or use a smaller dtype"

log = logging.getLogger(__name__)


class Captioner:
    """Writes captions greedily, many methods and images at once.

    What a vision tower makes of an image is kept in host memory from run to run; image files must not change meanwhile.

    Parameters
    ----------
    vlm
        The model.
    prompt
        The question; None is the family's default.
    max_new_tokens
        Longest caption in tokens, at least 1; 512 in the CHAIR evaluations.
    lanes
        Captions decoded at once; ``auto`` takes what fits into the device's memory.
    cuda_graphs
        Whether a CUDA device replays decode steps from graphs; the captions are the same.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        prompt: str | None = None,
        max_new_tokens: int = 512,
        lanes: Lanes = "auto",
        cuda_graphs: bool = True,
    ) -> None:
        if max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        self.vlm = vlm
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.lanes = lanes
        self.cuda_graphs = cuda_graphs
        self.plan: GridPlan | None = None
        """The grid that the latest run began with."""
        self.steps = 0
        """Decode steps of the latest run."""
        self._withdrawn: set[Hashable] = set()
        self._keys = ImageKeys()
        self._prompts = Prompts(vlm, prompt)

    def withdraw(self, tag: Hashable) -> None:
        """Give no captions for requests of ``tag`` any more; the lanes they hold are free."""
        self._withdrawn.add(tag)

    def run(self, requests: Iterable[CaptionRequest]) -> Iterator[Caption]:
        """Captions as they finish, in no fixed order.

        Parameters
        ----------
        requests
            Pulled from as it goes, some hundred ahead of what is decoded; requests of one image share its prefill if
            they come that close to each other.

        Raises
        ------
        RequestError
            If an image cannot be read or a method does not fit the model.
        KvtuneError
            If the device's memory does not hold a single caption.
        """
        source = iter(requests)
        look_ahead = max(_LOOK_AHEAD, 2 * (MOST_ROWS if self.lanes == "auto" else self.lanes))
        first = [(self._key(request), request) for request in islice(source, look_ahead)]
        if not first:
            return
        plan = self.plan = self._plan(first)
        self.steps = 0
        log.info("decoding %s", plan)
        scheduler: Scheduler[CaptionRequest] = Scheduler(plan.groups, plan.lanes)
        for key, request in first:
            scheduler.add(key, request)
        withdrawn, exhausted = 0, False
        decoding: _Decoding | None = None
        while True:
            if len(self._withdrawn) > withdrawn:
                withdrawn = len(self._withdrawn)
                scheduler.withdraw(lambda request: request.tag in self._withdrawn)
                if decoding is not None:
                    decoding.forget_withdrawn()
            if not exhausted:
                room = max(0, look_ahead - scheduler.waiting)
                pulled = list(islice(source, room))
                exhausted = len(pulled) < room
                for request in pulled:
                    if request.tag not in self._withdrawn:
                        scheduler.add(self._key(request), request)
            if not scheduler.is_busy:
                return
            done: list[Caption] = []
            try:
                if decoding is None:
                    decoding = _Decoding(self, scheduler, plan)
                if exhausted and not scheduler.waiting:
                    decoding.shrink(done)
                    scheduler = decoding.scheduler
                decoding.advance(done)
                scheduler = decoding.scheduler
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                scheduler = _halved(scheduler)
                decoding = None  # the smaller grid is made when this one is gone, and what the error holds of it
            yield from (caption for caption in done if caption.tag not in self._withdrawn)

    def _plan(self, first: list[tuple[Hashable, CaptionRequest]]) -> GridPlan:
        """The grid for a run that begins with these requests."""
        of_image = dict(reversed(first))
        some = list(of_image.values())[-PREFILL_BATCH:]
        try:
            longest = max(self.prompts_of([request])[0].length for request in some)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise KvtuneError(_NO_ROOM) from error
            raise
        return plan_grid(self.vlm, longest, self.max_new_tokens, len(first), len(of_image), self.lanes)

    def _key(self, request: CaptionRequest) -> Hashable:
        """What requests that can share a prefix have in common; refuses a method that does not fit the model."""
        if request.method is not None:
            request.method.check_layers(self.vlm.n_layers)
        return self._keys.of(request)

    def prompts_of(self, requests: Sequence[CaptionRequest]) -> list[Prompt]:
        """What the decoder takes for the images of ``requests``."""
        images = [request.image for request in requests]
        return self._prompts.of([self._keys.content(image) for image in images], images)


class _Decoding:
    """A grid, who is on it, and what they have written."""

    def __init__(self, captioner: Captioner, scheduler: Scheduler[CaptionRequest], plan: GridPlan) -> None:
        self.captioner, self.scheduler = captioner, scheduler
        self.vlm = captioner.vlm
        groups, lanes = len(scheduler.groups), len(scheduler.groups[0].lanes)
        self.grid = Grid(self.vlm, groups, lanes, captioner.cuda_graphs, plan.prompt_tokens, plan.slots)
        self.stops = self.vlm.family.stop_sequences(self.vlm)
        self.ends = np.array(self.vlm.eos_token_ids + [stop[-1] for stop in self.stops], dtype=int)
        self.requests: dict[int, CaptionRequest] = {}
        """Row -> what it decodes."""
        self.written = np.zeros((self.grid.rows, captioner.max_new_tokens), dtype=int)
        self.lengths = np.zeros(self.grid.rows, dtype=int)
        self.limits = np.zeros(self.grid.rows, dtype=int)
        self.turns = np.zeros(self.grid.rows, dtype=int)
        """Captions that each row has begun."""
        self.late = _LATE.get(self.vlm.device.type, 0)
        self.unread: list[Unread] = []
        """Steps whose tokens have not been looked at, oldest first."""

    @torch.inference_mode()
    def advance(self, done: list[Caption]) -> None:
        """Fill free lanes and decode one token in each; captions that end are added to ``done``, also if it fails."""
        with attention_implementation(self.vlm.hf_model, ATTENTION):
            self._begin(done)
            if self.requests:
                self.captioner.steps += 1
                rows = np.fromiter(self.requests, dtype=int)
                self.unread.append(Unread(rows, self.turns[rows], HostCopy(self.grid.step(rows))))
                self._read(done, self.late)

    def shrink(self, done: list[Caption]) -> None:
        """When few captions are left and nobody waits, go on with a grid of their rows alone."""
        if self._packing() is None:
            return
        self._read(done, 0)
        found = self._packing()
        if found is None:  # what has just been read was the end of all
            return
        groups, lanes = found
        rows = [[self._row(placement) for placement in group] for group in groups]
        self.scheduler = self.scheduler.packed(groups, lanes)
        with torch.inference_mode():
            self.grid = self.grid.packed(rows, lanes)
        place_of = {row: group * lanes + lane for group, own in enumerate(rows) for lane, row in enumerate(own)}
        self.requests = {place: self.requests[row] for row, place in place_of.items()}
        kept, places = list(place_of), list(place_of.values())
        for name in ("written", "lengths", "limits", "turns"):
            before = getattr(self, name)
            after = np.zeros((self.grid.rows, *before.shape[1:]), dtype=int)
            after[places] = before[kept]
            setattr(self, name, after)

    def _packing(self) -> tuple[list[Sequence[Placement[CaptionRequest]]], int] | None:
        """Groups and lanes of a smaller grid for what is left; None if nothing is, or too much."""
        most = int((1 - _IDLE) * self.grid.rows)
        if not 0 < len(self.requests) <= most:
            return None

        # Side by side with those of their length, rows are read together, and no further than need be.
        def length(placement: Placement[CaptionRequest]) -> int:
            return int(self.lengths[self._row(placement)])

        images = [sorted(image, key=length) for image in self.scheduler.of_one_image()]
        groups, lanes = packing(images, self.grid.lanes, len(self.scheduler.groups))
        if len(groups) * lanes > most:
            return None
        return sorted(groups, key=lambda group: length(group[-1])), lanes

    def forget_withdrawn(self) -> None:
        """Drop the rows whose requests the scheduler no longer holds."""
        running = {self._row(placement) for placement in self.scheduler.running}
        self.requests = {row: request for row, request in self.requests.items() if row in running}

    def _begin(self, done: list[Caption]) -> None:
        """Load images and start requests wherever there is room; a caption may be done with its first token."""
        while self.scheduler.has_room:
            loads, starts = self.scheduler.place()
            if not starts:
                break
            self._load(loads, starts)
            rows = [self._row(placement) for placement in starts]
            self.lengths[rows] = 0
            self.turns[rows] += 1
            most = self.captioner.max_new_tokens
            self.limits[rows] = [min(most, placement.request.max_new_tokens or most) for placement in starts]
            self.requests.update(zip(rows, (placement.request for placement in starts), strict=True))
            tokens = self.grid.start(rows, [placement.request.method for placement in starts])
            done += self._take(np.array(rows), np.array(tokens))

    def _load(self, groups: list[int], starts: list[Placement[CaptionRequest]]) -> None:
        request_of = {placement.group: placement.request for placement in starts}
        groups_of: dict[Hashable, list[int]] = {}
        for group in groups:
            groups_of.setdefault(self.scheduler.groups[group].key, []).append(group)
        images = list(groups_of.values())
        for begin in range(0, len(images), PREFILL_BATCH):
            batch = images[begin : begin + PREFILL_BATCH]
            requests = [request_of[copies[0]] for copies in batch]
            prompts = self.captioner.prompts_of(requests)
            prefixes = prefill(self.vlm, prompts, [request.method for request in requests])
            for copies, prefix in zip(batch, prefixes, strict=True):
                for group in copies:
                    self.grid.load(group, prefix)

    def _read(self, done: list[Caption], late: int) -> None:
        """Look at the tokens of all steps but the last ``late``; drop what a row wrote after its caption ended."""
        while len(self.unread) > late:
            step = self.unread.pop(0)
            tokens = step.tokens.read()
            goes_on = self.turns[step.rows] == step.turns
            rows = np.array([row for row in step.rows[goes_on].tolist() if row in self.requests], dtype=int)
            done += self._take(rows, tokens[rows])

    def _take(self, rows: np.ndarray, tokens: np.ndarray) -> list[Caption]:
        """Note one more token of each of ``rows``; captions that it ends leave the grid."""
        self.written[rows, self.lengths[rows]] = tokens
        self.lengths[rows] += 1
        at_limit = self.lengths[rows] == self.limits[rows]
        captions = []
        for row in rows[at_limit | np.isin(tokens, self.ends)].tolist():
            written = self.written[row, : self.lengths[row]].tolist()
            ended = cut(written, self.vlm.eos_token_ids, self.stops)
            if ended is None and len(written) < self.limits[row]:
                continue
            ids, reason = ended or (written, "length")
            request = self.requests.pop(row)
            self.scheduler.finish(*divmod(row, self.grid.lanes))
            captions.append(Caption(request.image_id, self.vlm.decode(ids), tuple(ids), reason, request.tag))
        return captions

    def _row(self, placement: Placement[CaptionRequest]) -> int:
        return placement.group * self.grid.lanes + placement.lane


def _halved(scheduler: Scheduler[CaptionRequest]) -> Scheduler[CaptionRequest]:
    """A scheduler of half the size for the same requests."""
    groups, lanes = len(scheduler.groups), len(scheduler.groups[0].lanes)
    if groups == lanes == 1:
        raise KvtuneError(_NO_ROOM)
    smaller = (groups // 2, lanes) if groups > 1 else (1, lanes // 2)
    log.warning("out of device memory: going on with %d images by %d captions", *smaller)
    return scheduler.resized(*smaller)
