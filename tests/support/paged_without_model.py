"""Paged decoding with its scheduler and its pages, and numbers made up on the host where the model would be.

A request's method is a :class:`Script`, and its caption what the script says; what is checked besides is that no two
captions and prompts write into one page, and that each caption is read beside its own image's prompt.
"""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kvtune.captioning import CaptionRequest, decoding, paged_decoding
from kvtune.captioning.forced import ForcedTokens
from kvtune.captioning.paged_decoding import PagedDecoding
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.pages import PAGE, Pages, pages_for

END = 1


@dataclasses.dataclass(frozen=True)
class Script:
    """A caption of ``length`` tokens, after which it ends, about the image ``image``."""

    number: int
    image: int
    length: int

    facts = ()

    def token(self, place: int) -> int:
        return END if place == self.length else 10 + (31 * self.number + 7 * place) % 1000

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(self.token(place) for place in range(self.length))


class ScriptedGrid(PagedGrid):
    """A grid whose cache is on the host: what was written to each page, and where."""

    def __init__(self, vlm: Any, plan: PagedPlan, cuda_graphs: bool = True) -> None:
        self.vlm, self.rows = vlm, plan.rows
        self.pages = Pages(plan.pages)
        self.newest = np.full(self.rows, -1, dtype=np.int32)
        self.forced = ForcedTokens(self.rows)
        self.cards = [SimpleNamespace(methods=SimpleNamespace(of=lambda running: []))]
        self._image_of = np.zeros(self.rows, dtype=np.int32)
        self._table = np.zeros((self.rows, pages_for(plan.max_new_tokens + 1)), dtype=np.int32)
        self.written: dict[int, Any] = {}
        self.scripts: dict[int, Script] = {}
        self.steps: list[int] = []
        self.tokens = torch.zeros(self.rows, dtype=torch.long)

    def load(self, image: int, prefix: Any) -> None:
        own = self.pages.of(("image", image))
        assert len(own) == pages_for(prefix.length)
        self.written.update({page: ("image", prefix.number, place) for place, page in enumerate(own)})

    def start(self, rows, images, methods):
        for row, image, script in zip(rows, images, methods, strict=True):
            assert self.newest[row] == -1 and not self.pages.of(("row", row))
            self._image_of[row], self.newest[row] = image, 1
            self._table[row] = 0
            self._table[row, 0] = page = self.pages.take(("row", row), 1)[0]
            self.scripts[row] = script
            self.written[page] = ("row", script.number, 0)
            self.tokens[row] = script.token(0)
        return rows

    def known(self, image):
        return SimpleNamespace(noted={})

    def move(self, order):
        super_pages = {row: list(self.pages.of(("row", row))) for row in range(self.rows)}
        self.newest, self._image_of, self._table = self.newest[order], self._image_of[order], self._table[order]
        self.pages.hand_over({("row", before): ("row", row) for row, before in enumerate(order.tolist())})
        for row, before in enumerate(order.tolist()):
            assert self.pages.of(("row", row)) == super_pages[before]
        self.scripts = {
            row: self.scripts[before] for row, before in enumerate(order.tolist()) if before in self.scripts
        }

    def grow(self, row):
        super().grow(row)
        place = self.newest[row] // PAGE
        self.written[self._table[row, place]] = ("row", self.scripts[row].number, place)

    def step(self, running):
        tokens = self.tokens[: self.width(running)]
        for row in running.tolist():
            script = self.scripts[row]
            for place in range(self.newest[row] // PAGE + 1):
                assert self.written[self._table[row, place]] == ("row", script.number, place)
            for place, page in enumerate(self.pages.of(("image", self._image_of[row]))):
                assert self.written[page] == ("image", script.image, place)
            tokens[row] = script.token(int(self.newest[row]))
        self.newest[running] += 1
        self.steps.append(len(running))
        return tokens


def scripted(patch, plan: PagedPlan, lengths_of_prompts, max_new_tokens: int) -> PagedDecoding:
    """Decoding with :class:`ScriptedGrid`; ``patch`` is pytest's."""
    patch.setattr(paged_decoding, "PagedGrid", ScriptedGrid)
    patch.setattr(decoding, "attention_implementation", lambda *given: contextlib.nullcontext())
    patch.setattr(
        decoding,
        "prefill",
        lambda vlm, prompts, *rest: iter(prompts),
    )
    vlm = SimpleNamespace(
        device=torch.device("cpu"),
        hf_model=None,
        eos_token_ids=[END],
        family=SimpleNamespace(stop_sequences=lambda vlm: []),
        decode=str,
    )

    def prompts_of(requests):
        return [
            SimpleNamespace(length=lengths_of_prompts(request.method.image), number=request.method.image)
            for request in requests
        ]

    fused = SimpleNamespace(applied=contextlib.nullcontext)
    return PagedDecoding(vlm, prompts_of, max_new_tokens, plan, fused)


def a_plan(rows: int, pages: int, prompt_tokens: int, max_new_tokens: int) -> PagedPlan:
    return PagedPlan(rows, 1, pages, prompt_tokens, max_new_tokens, 1, 0, 0, 0, 0)


def request(script: Script) -> CaptionRequest:
    return CaptionRequest(script.image, None, script, script.number)
