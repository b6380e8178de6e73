"""The engine's loop: requests are placed on the grid, the grid steps, captions leave."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch

from kvtune.captioning.arrivals import Arrivals
from kvtune.captioning.decoding import Decoding, on_device
from kvtune.captioning.depths import Depths
from kvtune.captioning.fused import FusedLayers
from kvtune.captioning.graphs import no_graphs_for
from kvtune.captioning.group_decoding import GroupDecoding
from kvtune.captioning.image_keys import ImageKeys
from kvtune.captioning.memory import PREFILL_BATCH, GridPlan, free_cached_memory, most_rows
from kvtune.captioning.paged_decoding import NO_ROOM, PagedDecoding
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.planning import Plan, bytes_for_methods, plan_for
from kvtune.captioning.prefill import decoder_of
from kvtune.captioning.prompts import Prompts, check_rotary, check_window
from kvtune.captioning.question import Asking
from kvtune.captioning.request import Caption, CaptionRequest, Work
from kvtune.device_errors import device_failures_told, is_out_of_memory
from kvtune.errors import KvtuneError, check_count
from kvtune.methods import Method
from kvtune.methods.facts import Depth
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import Prompt
from kvtune.models.options import Lanes, parse_lanes

LOOK_AHEAD = 512
"""Requests that wait for a lane, enough for those of one image to find each other; more where the grid is larger, so
that it can be filled with half of what each image has."""

log = logging.getLogger(__name__)


class Captioner(Asking):
    """Writes captions greedily, many methods and images at once.

    Image files must not change meanwhile.

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
        Whether a CUDA device replays decode steps from graphs; the captions are the same. Never done where the model is
        on several, or in 8 bits.
    keep_images
        Whether what a vision tower makes of an image is kept in host memory from run to run, as a search needs it.
        Without, files are told apart by their paths, and memory does not grow with the number of images.
    """

    def __init__(
        self,
        vlm: VisionLanguageModel,
        prompt: str | None = None,
        max_new_tokens: int = 512,
        lanes: Lanes | str = "auto",
        cuda_graphs: bool = True,
        keep_images: bool = True,
    ) -> None:
        check_count("max_new_tokens", max_new_tokens)
        self.vlm: VisionLanguageModel = vlm
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.lanes = parse_lanes(lanes)
        self.cuda_graphs = cuda_graphs
        self.keep_images = keep_images
        self.plan: Plan | None = None
        """The grid that the latest run began with."""
        self.steps = 0
        """Decode steps of the latest run."""
        self._withdrawn: set[Hashable] = set()
        self._kept: PagedGrid | None = None
        """The grid of the latest run, with its graphs: the next run is often of its size, as rounds of a search are."""
        self._keys = ImageKeys(keep_images)
        self._decoder = decoder_of(vlm)
        self._depths = Depths(vlm, self._keys.content, keep_images)
        self._prompts = Prompts(vlm, prompt, None if keep_images else 0)
        if cuda_graphs and (why := no_graphs_for(vlm)):
            log.info("decode steps are launched one by one, without CUDA graphs: %s", why)

    def changed(self, **settings: Any) -> Captioner:
        """A captioner of the same model with another prompt, max_new_tokens, lanes, cuda_graphs or keep_images."""
        names = ("vlm", "prompt", "max_new_tokens", "lanes", "cuda_graphs", "keep_images")
        return Captioner(**{name: getattr(self, name) for name in names} | settings)

    def withdraw(self, tag: Hashable) -> None:
        """Give no captions for requests of ``tag`` any more in this run; the lanes they hold are free."""
        self._withdrawn.add(tag)

    def run(
        self, requests: Iterable[CaptionRequest | None], on_work: Callable[[Work], None] = lambda work: None
    ) -> Iterator[Caption]:
        """Captions as they finish, in no fixed order.

        Parameters
        ----------
        requests
            Pulled from as it goes, some hundred ahead of what is decoded; requests of one image share its prefill if
            they come that close to each other. None among them says that there is no more for now: it is asked again
            after the next step, and if nothing is decoded any more the run is over.
        on_work
            Called with what is done so far after each batch of prompts and each step. What it raises ends the run;
            captions that have ended are given before.

        Raises
        ------
        RequestError
            If an image cannot be read, or a method does not fit the model, or a layer's sliding window is shorter than
            a prompt with its caption may get.
        KvtuneError
            If the device's memory does not hold a single caption, the device fails, or the model's logits are no
            numbers.
        """
        with device_failures_told():
            yield from self._run(requests, on_work)

    def _run(self, requests: Iterable[CaptionRequest | None], on_work: Callable[[Work], None]) -> Iterator[Caption]:
        self._withdrawn = set()
        look_ahead = max(LOOK_AHEAD, 2 * most_rows(self.lanes))
        arrivals = Arrivals(requests)
        arrivals.pull(look_ahead)
        first = [(self._key(request), request) for request in arrivals.here]
        arrivals.here.clear()
        if not first:
            return
        self.say_question()
        before, plan = self.plan, self._plan(first)
        self.plan, self.steps = plan, 0
        if plan != before:
            log.info("decoding %s", plan)
        withdrawn = 0
        work = Work(room=most_rows(self.lanes), by_image=isinstance(plan, GridPlan))
        if plan.rows + plan.lanes <= min(work.room, len(first)):  # memory holds no more
            work.room = plan.rows
        decoding: Decoding | None = None
        waiting = first
        """Requests of a grid that is still to be made."""
        while True:
            done: list[Caption] = []
            try:
                if decoding is None:
                    decoding = self._decoding(plan, waiting)
                    waiting = []
                    work.in_flight = 0
                    decoding.work, decoding.on_prompts = work, functools.partial(on_work, work)
                scheduler = decoding.scheduler
                if len(self._withdrawn) > withdrawn:
                    withdrawn = len(self._withdrawn)
                    scheduler.withdraw(lambda request: request.tag in self._withdrawn)
                    decoding.forget_withdrawn()
                if not arrivals.are_over:
                    arrivals.pull(max(0, look_ahead - scheduler.waiting))
                while arrivals.here:
                    request = arrivals.here[0]
                    if request.tag not in self._withdrawn:
                        decoding.add(self._key(request), request)
                    arrivals.here.popleft()
                if not scheduler.is_busy:
                    self._kept = decoding.grid if isinstance(decoding, PagedDecoding) else None
                    return
                if arrivals.are_over and not scheduler.waiting:
                    decoding.shrink(done)
                self.steps += decoding.advance(done)
            except BaseException as error:
                if not is_out_of_memory(error):
                    yield from self._wanted(done)
                    raise
                if decoding is not None:
                    waiting = decoding.scheduler.requests()
                plan = _smaller(plan)
                work.room = plan.rows
                withdrawn = 0
                decoding = None
            if decoding is None:  # the smaller grid is made when this one is gone, and what the error held of it
                free_cached_memory()
            yield from self._wanted(done)
            on_work(work)

    @functools.cached_property
    def _fused(self) -> FusedLayers:
        with on_device(self.vlm.device):
            return FusedLayers(self.vlm.decoder, self.vlm.device)

    def _wanted(self, done: Iterable[Caption]) -> Iterator[Caption]:
        return (caption for caption in done if caption.tag not in self._withdrawn)

    def _plan(self, first: list[tuple[Hashable, CaptionRequest]]) -> Plan:
        """The grid for a run that begins with these requests."""
        of_image = dict(reversed(first))
        some = list(of_image.values())[-PREFILL_BATCH:]
        if self._kept is None:
            torch.cuda.empty_cache()  # of what ran before; what the vision tower takes now it will take again
        prompts: list[Prompt] = []
        try:
            prompts = self.prompts_of(some)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self._kept is None:
                raise KvtuneError(NO_ROOM) from error
        if not prompts:  # for which the grid that is there leaves no room
            self._kept = None
            free_cached_memory()
            return self._plan(first)
        longest = max(prompt.length for prompt in prompts)
        own = max(len(prompt.after_image) for prompt in prompts)
        methods = {request.method for _, request in first if request.method}
        each = len(first) / len(of_image)
        of_row = bytes_for_methods(self.vlm, methods, longest, self.max_new_tokens + own, each)
        stream = longest, self.max_new_tokens, len(first), len(of_image), self.lanes
        plan = plan_for(self.vlm, *stream, self._kept.plan if self._kept else None, own, *of_row)
        if self._kept is None or self._kept.serves(plan):
            return plan
        self._kept = None
        torch.cuda.empty_cache()
        return plan_for(self.vlm, *stream, None, own, *of_row)

    def _decoding(self, plan: Plan, waiting: Iterable[tuple[Hashable, CaptionRequest]]) -> Decoding:
        """A grid on which nothing runs yet, and for which these requests wait."""
        decoding: Decoding
        if isinstance(plan, PagedPlan):
            grid, self._kept = self._kept, None
            if grid is not None:
                grid.clear()
            decoding = PagedDecoding(
                self.vlm, self.prompts_of, self.max_new_tokens, plan, self._fused, self.cuda_graphs, grid
            )
            decoding.expect = self._expect
        else:
            decoding = GroupDecoding(self.vlm, self.prompts_of, self.max_new_tokens, plan)
        decoding.depth_of = self._depths.of
        for key, request in waiting:
            decoding.add(key, request)
        return decoding

    def check(self, method: Method) -> None:
        """Raise RequestError if a method cannot serve the model."""
        method.check_model(self._decoder)
        for fact in method.facts:
            if isinstance(fact, Depth):
                self._depths.check(fact.source)

    def _key(self, request: CaptionRequest) -> Hashable:
        """What requests that can share a prefix have in common; refuses a method that does not fit the model."""
        if request.method is not None:
            self.check(request.method)
        return self._keys.content(request.image)

    def prompts_of(self, requests: Sequence[CaptionRequest]) -> list[Prompt]:
        """What the decoder takes for the images of ``requests``."""
        images = [request.image for request in requests]
        prompts = self._prompts.of([self._keys.content(image) for image in images], images)
        for prompt in prompts:
            check_window(self.vlm, prompt.length, self.max_new_tokens)
            check_rotary(self.vlm, prompt.next_position, self.max_new_tokens)
        return prompts

    def _expect(self, requests: Sequence[CaptionRequest]) -> None:
        """The images of ``requests`` will be wanted next."""
        images = [request.image for request in requests]
        self._prompts.expect([self._keys.content(image) for image in images], images)


def _smaller(plan: Plan) -> Plan:
    """A grid of about half the size."""
    smaller = plan.smaller()
    if smaller is None:
        raise KvtuneError(NO_ROOM)
    log.warning("out of device memory: going on with %d captions at once", smaller.rows)
    return smaller
