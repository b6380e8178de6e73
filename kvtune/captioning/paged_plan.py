"""How many rows and pages fit into a GPU's memory, by calculation."""

from __future__ import annotations

import dataclasses
from typing import Any

from kvtune.captioning.memory import (
    PREFILL_BATCH,
    PREFILL_TOKENS,
    USABLE,
    Lanes,
    bytes_per_position,
    free_memory,
    megabytes,
    most_rows,
    prefill_bytes,
    prompts_together,
    step_bytes,
    weight_bytes,
)
from kvtune.captioning.paged_attention import LANES
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.models import VisionLanguageModel
from kvtune.models.spread import Card

USUAL_TOKENS = 95
"""Tokens of a caption that rows are planned for until captions have ended; CHAIR captions run to some 100."""

_ROWS_STEP = 128
"""Rows come in steps of so many, in which a GPU's matrix products are fastest."""

_MORE_IMAGES = 2 * PREFILL_BATCH
"""Images on the grid beside one a row: a batch that is run ahead of need, and one that nobody reads yet."""

_SPARE = 5 * 2**28
"""Bytes of a GPU that are left alone beside what is counted: for 32 graphs of some 10 MiB, the code of kernels that are
loaded as they are wanted, workspaces of libraries, and what a driver puts aside."""

_SPARE_SHARE = 0.04
"""Share of a GPU's free memory that is left alone beside :data:`_SPARE`, for fragments that no trace has shown."""

FRAGMENTS = 1.55
"""What prompts take of a GPU's memory for each byte that they hold: tensors of all sizes come and go, and some stay."""

_PREFILL_SHARE = 1 / 8
"""Share of a GPU's free memory that prompts may take which are run together, but for one alone."""

_ENOUGH = 0.9
"""Share of the pages of a new grid with which one that is there will do; free memory is never twice the same."""


@dataclasses.dataclass(frozen=True)
class PagedPlan:
    """A paged grid and what it takes; where a model is on several cards, of the card that has the least room for it.

    Attributes
    ----------
    rows
        Captions decoded at once at most; fewer where pages are short.
    lanes
        Captions of one image among them, if its requests come together.
    pages
        Pages of the KV cache, which prompts and captions share.
    prompt_tokens
        Length of the prompts that were looked at.
    max_new_tokens
        Longest caption.
    own_tokens
        Prompt tokens that a row has in its own pages at most, at least 1.
    weights
        Bytes of the model.
    cache
        Bytes of all pages.
    step, prefill
        Bytes that a decode step, and the prefill of a batch of images, take for a moment beside those; graphs of steps
        have memory of their own.
    prefill_tokens
        Prompt tokens that are run together at most, unless one prompt alone has more.
    row_state
        Bytes that methods remember of a row.
    acting
        Bytes that a decode step takes for a moment more, where methods change attention.
    cards
        Cards that the model is on.
    """

    rows: int
    lanes: int
    pages: int
    prompt_tokens: int
    max_new_tokens: int
    own_tokens: int
    weights: int
    cache: int
    step: int
    prefill: int
    prefill_tokens: int = PREFILL_TOKENS
    row_state: int = 0
    acting: int = 0
    cards: int = 1

    @property
    def activations(self) -> int:
        """Bytes that come and go."""
        return self.step + self.acting + self.prefill

    @property
    def peak(self) -> int:
        """Most bytes that are held at once."""
        return self.weights + self.cache + self.rows * self.row_state + self.activations

    @property
    def images(self) -> int:
        """Images on the grid at most."""
        return self.rows + _MORE_IMAGES

    @property
    def text_pages(self) -> int:
        """Pages of a row with the longest caption."""
        return pages_for(self.max_new_tokens + self.own_tokens)

    def together(self, longest: int) -> int:
        """Prompts that are run together at most, the longest of which has so many tokens: shorter ones than were looked
        at in as many tokens as there is memory for."""
        looked_at = prompts_together(self.prompt_tokens, self.prefill_tokens) * self.prompt_tokens
        return prompts_together(longest, looked_at if longest < self.prompt_tokens else self.prefill_tokens)

    def smaller(self) -> PagedPlan | None:
        """A plan of half the rows and half the cache; None if there is one row or no room for its caption."""
        pages = self.pages // 2
        if self.rows == 1 or pages < pages_for(self.prompt_tokens) + self.text_pages:
            return None
        halves = {name: getattr(self, name) // 2 for name in ("rows", "cache", "step", "acting")}
        return dataclasses.replace(self, pages=pages, **halves)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"peak": self.peak}

    def __str__(self) -> str:
        where = f", on the fullest of {self.cards} cards" if self.cards > 1 else ""
        return (
            f"{self.rows} captions at once{where}: at most {megabytes(self.peak)} (weights {megabytes(self.weights)}, "
            f"KV cache {megabytes(self.cache)}, activations {megabytes(self.activations)})"
        )


def plan_pages(
    vlm: VisionLanguageModel,
    prompt_tokens: int,
    max_new_tokens: int,
    requests: int,
    images: int,
    lanes: Lanes = "auto",
    kept: PagedPlan | None = None,
    own_tokens: int = 1,
    row_state: int = 0,
    row_acting: int = 0,
) -> PagedPlan:
    """The paged grid for a stream in which ``requests`` are about ``images``.

    As many rows as there are pages for, at captions of the usual length; no more pages than the stream can fill, and no
    more than fit into the free memory, which of several cards the one says that has the least for its layers.

    Parameters
    ----------
    prompt_tokens
        Length of the longest prompt, visual tokens included.
    lanes
        Captions decoded at once over the whole grid; ``auto`` takes what fits.
    kept
        The plan of a grid that is there already; it is the answer, but for the prompts, where it will do.
    own_tokens
        Prompt tokens that a row has in its own pages at most: the last, or those after the image.
    row_state, row_acting
        Bytes that methods remember of a row, and that a row takes for a moment where they change its attention; a grid
        that was planned for less will not do.
    """
    prompt_pages, longest = pages_for(prompt_tokens), pages_for(max_new_tokens + own_tokens)
    usual = min(longest, pages_for(USUAL_TOKENS + 1))
    of_image = max(1, min(LANES, requests // images))
    cards = [_CardRoom.of(vlm, card, prompt_tokens, kept) for card in vlm.cards]
    prefill_tokens = kept.prefill_tokens if kept else min(card.prefill_tokens for card in cards)
    together = min(images, prompts_together(prompt_tokens, prefill_tokens))
    step = step_bytes(vlm, prompt_tokens, max_new_tokens)
    rows = min(requests, most_rows(lanes))

    def prefill(card: _CardRoom) -> int:
        return prefill_bytes(vlm, together, prompt_tokens, card.layers)

    def room(card: _CardRoom, rows: int) -> int:
        """Pages that a card holds beside so many rows."""
        # A step comes twice: where it is run, and where its graph is captured.
        return (card.usable - rows * (row_state + row_acting + 2 * step) - int(FRAGMENTS * prefill(card))) // card.page

    def pages(rows: int) -> int:
        fillable = rows * longest + min(images, rows + _MORE_IMAGES) * prompt_pages
        return max(prompt_pages + longest, min(fillable, *(room(card, rows) for card in cards)))

    if lanes == "auto":
        while rows > 1 and rows * (usual + prompt_pages / of_image) > pages(rows):
            rows = (rows - 1) // _ROWS_STEP * _ROWS_STEP if rows > _ROWS_STEP else rows - 1
    fullest = min(cards, key=lambda card: room(card, rows))
    if (
        kept is not None
        and kept.rows >= rows
        and kept.pages >= _ENOUGH * pages(rows)
        and kept.text_pages >= longest
        and kept.row_state >= row_state
        and kept.acting >= min(requests, kept.rows) * row_acting
    ):
        return dataclasses.replace(kept, lanes=of_image, prompt_tokens=prompt_tokens, prefill=prefill(fullest))
    return PagedPlan(
        rows,
        of_image,
        pages(rows),
        prompt_tokens,
        max_new_tokens,
        own_tokens,
        weights=fullest.weights,
        cache=(pages(rows) + 1) * fullest.page,
        step=rows * step,
        prefill=prefill(fullest),
        prefill_tokens=prefill_tokens,
        row_state=row_state,
        acting=rows * row_acting,
        cards=len(cards),
    )


def acting_bytes(vlm: VisionLanguageModel, prompt_tokens: int, text_tokens: int, of_image: float) -> int:
    """Bytes of a row while a method changes its attention in a layer: scores, weights and what it makes of them.

    Scores of all lanes of its tile, of which ``of_image`` captions of an image take that many; and four tensors of its
    own at most, as seen of all methods and some stacks. A third more for tiles that are counted in powers of two.
    """
    positions = (pages_for(prompt_tokens) + pages_for(text_tokens)) * PAGE
    tensors = 4 + LANES / max(1, min(LANES, of_image))
    return int(tensors * 4 / 3 * vlm.heads.heads * positions * max(4, vlm.dtype.itemsize))


@dataclasses.dataclass(frozen=True)
class _CardRoom:
    """What a card has to do with a grid: its layers, bytes of a page, of the model's weights and of what the grid may
    take, and how many prompt tokens may be run together."""

    layers: int
    page: int
    weights: int
    usable: int
    prefill_tokens: int

    @classmethod
    def of(cls, vlm: VisionLanguageModel, card: Card, prompt_tokens: int, kept: PagedPlan | None) -> _CardRoom:
        layers = len(card.layers)
        page = PAGE * bytes_per_position(vlm, layers)
        # The grid that is there will be gone.
        free = free_memory(card.device) + ((kept.pages + 1) * page if kept else 0)
        usable = int((1 - _SPARE_SHARE) * free) - _SPARE if card.device.type == "cuda" else int(USABLE * free)
        most = together = prompts_together(prompt_tokens)
        while together > 1 and FRAGMENTS * prefill_bytes(vlm, together, prompt_tokens, layers) > _PREFILL_SHARE * free:
            together -= 1
        prefill_tokens = PREFILL_TOKENS if together == most else together * prompt_tokens
        return cls(layers, page, weight_bytes(vlm, card.device), usable, prefill_tokens)
