"""A grid, who is on it, and what they have written: one token more a call, whatever the device."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.cost_model import StepCost
from kvtune.captioning.forced import ForcedTokens
from kvtune.captioning.greedy import NO_TOKEN, no_numbers
from kvtune.captioning.grid_attention import ATTENTION
from kvtune.captioning.host_copy import HostCopy, Unread
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prefix import Prefix
from kvtune.captioning.request import Caption, CaptionRequest, Work, cut
from kvtune.captioning.scheduler import Placement
from kvtune.captioning.texts import Texts
from kvtune.hf import attention_implementation
from kvtune.methods import Method
from kvtune.methods.facts import AnyFact, Depth, PromptFacts
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import Prompt

IDLE = 1 / 3
"""Share of the rows that must be idle at the end of a run before what is left moves to a smaller step."""


DepthOf = Callable[[CaptionRequest, str, PromptFacts], Tensor]
"""How far away what the visual tokens of a request's prompt see is, by a source of depth."""

PromptsOf = Callable[[Sequence[CaptionRequest]], list[Prompt]]
"""What the decoder takes for the images of some requests."""


class AnyGrid(Protocol):
    """What decoding asks of a grid."""

    forced: ForcedTokens

    @property
    def tokens(self) -> Tensor: ...

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int]: ...

    def known(self, image: int) -> PromptFacts: ...

    def learn(self, image: int, facts: PromptFacts) -> None: ...

    def step(self, running: np.ndarray) -> Tensor: ...


class AnyScheduler(Protocol):
    """What decoding asks of a scheduler."""

    @property
    def waiting(self) -> int: ...

    @property
    def is_busy(self) -> bool: ...

    @property
    def has_room(self) -> bool: ...

    @property
    def running(self) -> list[Placement[CaptionRequest]]: ...

    def place(self) -> tuple[dict[int, Hashable], list[Placement[CaptionRequest]]]: ...

    def finish(self, row: int) -> None: ...

    def add(self, key: Hashable, request: CaptionRequest) -> None: ...

    def withdraw(self, unwanted: Callable[[CaptionRequest], bool]) -> None: ...

    def requests(self) -> list[tuple[Hashable, CaptionRequest]]: ...


class Decoding(ABC):
    """Captions being written.

    Parameters
    ----------
    late
        Steps that are launched before a step's tokens are looked at, so that a device need not wait for the host.

    Attributes
    ----------
    requests
        Row -> what it decodes.
    work
        What is done is added here.
    on_prompts
        Called after each batch of prompts.
    price
        What a step costs here.
    depth_of
        To be set where methods want depth.
    """

    grid: AnyGrid
    scheduler: AnyScheduler
    price: ClassVar[StepCost]
    depth_of: DepthOf

    def __init__(
        self, vlm: VisionLanguageModel, prompts_of: PromptsOf, max_new_tokens: int, rows: int, late: int
    ) -> None:
        self.vlm, self.prompts_of, self.max_new_tokens, self.late = vlm, prompts_of, max_new_tokens, late
        self.requests: dict[int, CaptionRequest] = {}
        self.work = Work()
        self.on_prompts: Callable[[], None] = lambda: None
        self.facts: set[AnyFact] = set()
        """What methods want to know of prompts."""
        self.together: Callable[[int], int] = prompts_together
        """Prompts that are run together at most; see :func:`kvtune.captioning.prefill.prefill`."""
        self._stops = vlm.family.stop_sequences(vlm)
        self._ends = np.array(vlm.eos_token_ids + [stop[-1] for stop in self._stops], dtype=int)
        self._texts = Texts(rows, max_new_tokens)
        self._unread: list[Unread] = []
        """Steps, and starts of captions, whose tokens have not been looked at, oldest first."""

    def add(self, key: Hashable, request: CaptionRequest) -> None:
        """Let ``request`` wait for a row; requests with equal ``key`` share a prompt."""
        if request.method is not None:
            self.facts.update(request.method.facts)
        self.scheduler.add(key, request)

    @torch.inference_mode()
    def advance(self, done: list[Caption]) -> bool:
        """Fill free rows and decode one token in each; captions that end are added to ``done``, also if it fails.

        Returns
        -------
        bool
            Whether a step was taken; none is where every caption was seen to end with its first token.
        """
        with attention_implementation(self.vlm.hf_model, ATTENTION), on_device(self.vlm.device), self._layers():
            self._begin(done)
            self._make_room()
            if not self.requests:
                return False
            rows = np.fromiter(self.requests, dtype=int)
            writing = self.grid.forced.writing(rows)
            self._unread.append(Unread(writing, self._texts.turns[writing], HostCopy(self.grid.step(rows))))
            self.work.cost += self._cost(rows)
            self._read(done, self.late)
            return True

    @abstractmethod
    def shrink(self, done: list[Caption]) -> None:
        """When few captions are left and nobody waits, go on with fewer rows; captions found to end go to ``done``."""

    def forget_withdrawn(self) -> None:
        """Drop the rows whose requests the scheduler no longer holds."""
        running = {placement.row for placement in self.scheduler.running}
        for row in [row for row in self.requests if row not in running]:
            self._drop(row)

    @abstractmethod
    def _cost(self, rows: np.ndarray) -> float:
        """What a step of these rows costs."""

    @abstractmethod
    def _load(
        self, loads: dict[int, Hashable], starts: list[Placement[CaptionRequest]]
    ) -> list[Placement[CaptionRequest]]:
        """Run the prompts of images that come onto the grid; those of ``starts`` that there was room for."""

    def _layers(self) -> AbstractContextManager[object]:
        """The decoder's layers as they are to run."""
        return nullcontext()

    def _ran_prompts(self, lengths: Sequence[int]) -> None:
        """Prompts of so many tokens were run."""
        self.work.prompts += len(lengths)
        self.work.prompts_cost += self.price.prompt * sum(lengths)
        self.on_prompts()

    def _make_room(self) -> None:  # noqa: B027 - a grid may have room for every step
        """See to it that the grid can take the next token of every row."""

    def _drop(self, row: int) -> None:
        """Nobody wants the caption of ``row`` any more."""
        self.work.in_flight -= int(self._texts.lengths[row])
        del self.requests[row]

    def _end(self, row: int) -> None:
        """The caption of ``row`` has come to its end."""
        self.scheduler.finish(row)
        self._drop(row)

    def _begin(self, done: list[Caption]) -> None:
        """Load images and start requests wherever there is room.

        A caption may be done with its first token; where tokens are looked at late, that is seen after the next step.
        """
        while self.scheduler.has_room:
            loads, starts = self.scheduler.place()
            starts = self._load(loads, starts)
            if not starts:
                break
            self._learn(starts)
            rows = [placement.row for placement in starts]
            most = self.max_new_tokens
            self._texts.begin(rows, [min(most, placement.request.max_new_tokens or most) for placement in starts])
            self.requests.update(zip(rows, (placement.request for placement in starts), strict=True))
            images = [placement.image for placement in starts]
            begun = np.array(
                self.grid.start(rows, images, [placement.request.method for placement in starts]), dtype=int
            )
            if len(begun):
                self._unread.append(Unread(begun, self._texts.turns[begun], HostCopy(self.grid.tokens)))
                if not self.late:
                    self._read(done, 0)

    def _prefixes(self, requests: Sequence[CaptionRequest], prompts: Sequence[Prompt]) -> Iterator[Prefix]:
        """The prompts of some requests, run, with all that methods want to know of them."""
        depths = [fact for fact in self.facts if isinstance(fact, Depth)]
        for request, prefix in zip(requests, prefill(self.vlm, prompts, self.facts, self.together), strict=True):
            if depths:
                known = prefix.end.facts
                found: dict[AnyFact, Tensor] = {fact: self.depth_of(request, fact.source, known) for fact in depths}
                known = dataclasses.replace(known, noted={**known.noted, **found})
                prefix = dataclasses.replace(prefix, end=dataclasses.replace(prefix.end, facts=known))
            yield prefix

    def _learn(self, starts: Sequence[Placement[CaptionRequest]]) -> None:
        """Run a prompt again where a method wants to know what nobody had asked for when the image came."""
        for placement in starts:
            method = placement.request.method
            if method is not None and not self.grid.known(placement.image).noted.keys() >= set(method.facts):
                (again,) = self._prefixes([placement.request], self.prompts_of([placement.request]))
                self.grid.learn(placement.image, again.end.facts)

    def _read(self, done: list[Caption], late: int) -> None:
        """Look at the tokens of all steps but the last ``late``; drop what a row wrote after its caption ended."""
        while len(self._unread) > late:
            step = self._unread.pop(0)
            tokens = step.tokens.read()
            goes_on = self._texts.turns[step.rows] == step.turns
            rows = np.array([row for row in step.rows[goes_on].tolist() if row in self.requests], dtype=int)
            done += self._take(rows, tokens[rows])

    def _take(self, rows: np.ndarray, tokens: np.ndarray) -> list[Caption]:
        """Note one more token of each of ``rows``; captions that it ends leave the grid."""
        if (tokens == NO_TOKEN).any():
            request = self.requests[int(rows[tokens == NO_TOKEN][0])]
            raise no_numbers(f"image {request.image_id}", self.vlm.dtype_name)
        self._texts.add(rows, tokens)
        self.work.tokens += len(rows)
        self.work.in_flight += len(rows)
        at_limit = self._texts.at_limit(rows)
        may_end = at_limit | np.isin(tokens, self._ends)
        captions = []
        for row, must_end in zip(rows[may_end].tolist(), at_limit[may_end], strict=True):
            written = self._texts.of(row)
            ended = cut(written, self.vlm.eos_token_ids, self._stops)
            if ended is None and not must_end:
                continue
            ids, reason = ended or (written, "length")
            request = self.requests[row]
            self._end(row)
            captions.append(Caption(request.image_id, self.vlm.decode(ids), tuple(ids), reason, request.tag))
        return captions


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Kernels are launched, and graphs captured, on ``device``, whichever GPU is the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
