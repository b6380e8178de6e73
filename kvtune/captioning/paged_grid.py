"""The grid on a GPU: prompts and captions in pages of one pool, any image in any row, one graph for all lengths.

What an image's prompt left in the KV cache lies in pages that all rows of the image read; what a row has generated lies
in pages of its own, taken one after the other as the caption grows, so that memory follows what was written and a long
caption costs what is in it. A row's text begins with a copy of the last prompt token, or with the prompt tokens that
it runs itself, so that the position before any generated token is always the one before in the text.

The host knows at every step how long each caption is and where its pages are; it sends all of that ahead of the step in
one copy, and a step has a fixed shape whatever it says.

Where a model is spread over several cards, a page lies on all of them, each with the keys and values of its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.card_pages import CardPages, Methods, StepShape
from kvtune.captioning.decoding import on_device
from kvtune.captioning.forced import NOT_FORCED, ForcedTokens
from kvtune.captioning.graphs import no_graphs_for, step_graphs
from kvtune.captioning.greedy import choose
from kvtune.captioning.grid_attention import KeysOnly
from kvtune.captioning.paged_attention import LANES
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.paged_step import SpreadStep
from kvtune.captioning.pages import PAGE, Pages, pages_for
from kvtune.captioning.prefix import KnownPrompts, Prefix
from kvtune.hf import CACHE
from kvtune.methods import Method
from kvtune.methods.row_methods import looking_at_layers
from kvtune.methods.row_state import RowState
from kvtune.methods.sending import to_device
from kvtune.models import VisionLanguageModel

OnCard = tuple[Sequence[RowState[Any]], Methods]
"""What methods of a step's rows remember on one card, and those of them that change scores or weights."""

_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step where few are left; above, multiples of :data:`_WIDTH`."""

_WIDTH = 128
"""Rows of a step come in multiples of so many, in which matrix products are fastest, and of which few graphs are."""


class PagedGrid(KnownPrompts):
    """Tensors of ``plan.rows`` captions and ``plan.pages`` pages, and the decode step.

    Attributes
    ----------
    cards
        What is on each card; the first has the tokens too.
    pages
        Who holds which of them: ``("row", n)`` and ``("image", n)``.
    tokens
        [rows], the newest of each; a step, or a start, overwrites them.
    """

    def __init__(self, vlm: VisionLanguageModel, plan: PagedPlan, cuda_graphs: bool = True) -> None:
        super().__init__()
        self.vlm, self.plan, self.rows = vlm, plan, plan.rows
        device = vlm.device
        self._embed = vlm.hf_model.get_input_embeddings()
        self._head = vlm.hf_model.get_output_embeddings()
        self.pages = Pages(plan.pages)
        self.cards = []
        for card in vlm.cards:
            with on_device(card.device):
                self.cards.append(CardPages(vlm, plan, card))

        self.newest = np.full(self.rows, -1, dtype=np.int32)
        """Position of each row's newest token in its text; -1 for a row that stands idle."""
        self._image_of = np.zeros(self.rows, dtype=np.int32)
        self._read = np.zeros(self.rows, dtype=np.int32)
        """Prompt tokens that each row reads in its image's pages."""
        self._table = np.zeros((self.rows, plan.text_pages), dtype=np.int32)
        self.tokens = torch.zeros(self.rows, dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self.tokens)
        self.forced = ForcedTokens(self.rows)
        self._graphs = step_graphs(device, plan.step + plan.acting) if cuda_graphs and not no_graphs_for(vlm) else None

    def serves(self, plan: object) -> bool:
        """Whether it is a grid as a plan has it."""
        own = self.plan.rows, self.plan.pages
        return isinstance(plan, PagedPlan) and own == (plan.rows, plan.pages)

    def clear(self) -> None:
        """Be as a new grid for another run, but for the graphs that are captured."""
        self.pages = Pages(self.plan.pages)
        self.newest[:] = -1
        self._table[:] = 0
        self._prompts.clear()
        for card in self.cards:
            card.methods.clear()

    def reserve(self, image: int, length: int) -> None:
        """Take the pages of a prompt of ``length`` tokens; as many must be free."""
        self.pages.take(("image", image), pages_for(length))

    def load(self, image: int, prefix: Prefix) -> None:
        """Write a prompt's keys and values into the pages that are reserved for it."""
        own = self.pages.of(("image", image))
        for card, keys, values in zip(self.cards, prefix.keys, prefix.values, strict=True):
            card.load(image, own, keys, values, prefix.end.facts.visual)
        self._prompts[image] = prefix.end

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int]:
        """Begin a caption in each of ``rows``, each about one of the prompts on the grid and with its method.

        Returns
        -------
        list
            Those of ``rows`` whose first token the prefill has given; where the method acts on the prompt, the row runs
            the end of it itself.
        """
        prompts = [self._prompts[image] for image in images]
        forced = [prompt.forced(method) for prompt, method in zip(prompts, methods, strict=True)]
        for row, ids in zip(rows, forced, strict=True):
            self.forced.start(row, ids)
        own = [self.pages.take(("row", row), 1)[0] for row in rows]
        self._image_of[rows] = images
        self._read[rows] = [prompt.length - max(1, len(ids)) for prompt, ids in zip(prompts, forced, strict=True)]
        self.newest[rows] = [0 if ids else 1 for ids in forced]
        self._table[rows] = 0
        self._table[rows, 0] = own
        last = [divmod(prompt.length - 1, PAGE) for prompt in prompts]
        from_pages = [self.pages.of(("image", image))[page] for image, (page, _) in zip(images, last, strict=True)]
        numbers = np.array(
            [
                rows,
                own,
                from_pages,
                [place for _, place in last],
                [prompt.next_position - len(ids) for prompt, ids in zip(prompts, forced, strict=True)],
            ]
        )
        sent = [to_device(numbers, card.device) for card in self.cards]
        index, positions = sent[0][0], sent[0][4]
        self.tokens[index] = torch.stack([prompt.first_token for prompt in prompts])
        self._positions[index] = positions
        for card, there in zip(self.cards, sent, strict=True):
            card.begin(*there[1:4])
            card.methods.start(rows, methods, [prompt.facts for prompt in prompts])
        return [row for row, ids in zip(rows, forced, strict=True) if not ids]

    def release(self, row: int) -> None:
        """The caption in ``row`` is done, or given up; its pages are free and it stands idle."""
        self.pages.give_back(("row", row))
        self.newest[row] = -1
        self._table[row] = 0

    def outgrown(self, running: np.ndarray) -> np.ndarray:
        """Those of the rows ``running`` whose next token needs a page that they do not have yet."""
        return running[self._table[running, self.newest[running] // PAGE] == 0]

    def grow(self, row: int) -> None:
        """Take the page that a row has outgrown its pages to; there must be one free."""
        self._table[row, self.newest[row] // PAGE] = self.pages.take(("row", row), 1)[0]

    def move(self, order: np.ndarray) -> None:
        """Row ``i`` becomes what row ``order[i]`` was; ``order`` is a permutation of all rows."""
        index = to_device(order, self.vlm.device)
        for name in ("tokens", "_positions"):
            tensor = getattr(self, name)
            tensor.copy_(tensor[index])
        with_nobody = np.append(order, self.rows)
        for card in self.cards:
            card.methods.move(with_nobody, to_device(with_nobody, card.device))
        self.forced.move(order)
        for name in ("newest", "_image_of", "_read", "_table"):
            setattr(self, name, getattr(self, name)[order])
        self.pages.hand_over({("row", before): ("row", row) for row, before in enumerate(order.tolist())})

    def step(self, running: np.ndarray) -> Tensor:
        """Decode one token in each row of ``running`` (row numbers), which has a page for it.

        Returns
        -------
        Tensor
            [rows of the step], the tokens that come next; the next step overwrites them.
        """
        shape, on_cards = self._send_layout(running, self.width(running))
        if self._graphs is None:
            self._decode(shape, on_cards)
        else:
            ((card,), ((states, acting),)) = self.cards, on_cards
            tensors = [(tensor.data_ptr(), tensor.shape) for tensor in (card.prompt_table, card.classes)]
            kinds = [tuple(map(type, one)) for one in acting]
            key = (*shape, *tensors, *kinds, *(state.captured_with() for state in states))
            self._graphs.run(key, lambda: self._decode(shape, on_cards))
        self.newest[running] += 1
        self.forced.advance(running)
        return self.tokens[: shape.width]

    def width(self, running: np.ndarray, moved: bool = False) -> int:
        """Rows of a step in which ``running`` decode: all of them if a method of theirs changes outputs.

        With ``moved``, if they stood side by side.
        """
        if any(state.changes_output for state in self.cards[0].methods.of(running)):
            return self.rows
        needed = len(running) if moved else int(running.max()) + 1
        wide = next((width for width in _WIDTHS if width >= needed), -(-needed // _WIDTH) * _WIDTH)
        return min(wide, self.rows)

    def _decode(self, shape: StepShape, on_cards: Sequence[OnCard]) -> None:
        """The step on the device: no shape, and nothing that Python decides, depends on what the tensors hold."""
        parts = [card.step(shape, *own) for card, own in zip(self.cards, on_cards, strict=True)]
        first, forced = parts[0]
        on_several = [(card.device, part) for card, (part, _) in zip(self.cards, parts, strict=True)]
        step = first if len(parts) == 1 else SpreadStep(on_several)
        tokens, positions = self.tokens[: shape.width], self._positions[: shape.width]
        fed = torch.where(forced == NOT_FORCED, tokens, forced).clamp(min=0)
        with ExitStack() as undo:
            undo.enter_context(self.vlm.moving_rotary.held())
            for card, (states, _) in zip(self.cards, on_cards, strict=True):
                undo.enter_context(looking_at_layers(card.methods.decoder, states))
            hidden = self.vlm.decoder(
                inputs_embeds=self._embed(fed)[:, None],
                position_ids=positions[:, None],
                **{CACHE: KeysOnly()},
                use_cache=True,
                kvtune_grid=step,
            ).last_hidden_state
        tokens.copy_(choose(self._head(hidden[:, 0])))
        step.end()
        positions += 1

    def _send_layout(self, running: np.ndarray, width: int) -> tuple[StepShape, list[OnCard]]:
        """Tell the cards where the rows of this step are.

        Returns
        -------
        tuple
            The step's shape; and for each card the states of the rows' methods, and of those that change scores or
            weights.
        """
        by_card = [card.methods.on_attention(running) for card in self.cards]
        groups = [rows for _, rows in by_card[0]]
        acting = np.concatenate([running[:0], *groups])
        rest = np.setdiff1d(running, acting)
        lanes_of_rows = np.zeros(width, dtype=np.int32)
        members, images, lengths = [], [], []
        tiles = acting_from = 0
        for rows in filter(len, (rest, acting)):
            part, part_images, part_lengths, lanes = self._tiles_of(rows)
            lanes_of_rows[rows] = lanes + tiles * LANES
            acting_from, tiles = tiles, tiles + len(part)
            members.append(part)
            images.append(part_images)
            lengths.append(part_lengths)
        newest = np.full(width, -1, dtype=np.int32)
        newest[running] = self.newest[running]
        forced = np.full(width, NOT_FORCED, dtype=np.int32)
        forced[running] = self.forced.next(running)
        to_come = np.full(width, -1, dtype=np.int32)
        to_come[running] = self.forced.to_come(running)
        # A row that is not running has pages still if its last token has not been looked at; it writes into nobody's.
        table = np.where(newest[:, None] >= 0, self._table[:width], 0)
        # Each kind of methods takes its own lanes of the tiles that all of them share, or in which few stand.
        nobody = (tiles - acting_from) * LANES
        is_crowded = _power_of_two(max(LANES, len(acting))) >= nobody
        apart = [] if len(groups) == 1 and is_crowded else groups
        by_kind = [lanes_of_rows[rows] - acting_from * LANES for rows in apart]
        pages = int(self.newest[acting].max(initial=-1)) // PAGE + 1
        padded = [
            np.pad(lanes, (0, _power_of_two(max(LANES, len(lanes))) - len(lanes)), constant_values=nobody)
            for lanes in by_kind
        ]
        parts = (
            newest,
            lanes_of_rows,
            forced,
            to_come,
            table.ravel(),
            *(np.concatenate(of_tiles).ravel() for of_tiles in (images, lengths, members)),
            *padded,
        )
        for card in self.cards:
            card.send_layout(parts)
        on_cards: list[OnCard] = [
            (card.methods.of(running), [states for states, _ in own])
            for card, own in zip(self.cards, by_card, strict=True)
        ]
        acting_pages = min(self.plan.text_pages, _power_of_two(pages)) if pages else 0
        return StepShape(width, tiles, acting_from, acting_pages, tuple(map(len, padded))), on_cards

    def _tiles_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tiles for rows, each of one image and one length that is read of its prompt: their members, [tiles, lanes],
        images and lengths, a power of two of them; and the lane of each of ``rows`` among them."""
        kinds = self._image_of[rows].astype(np.int64) << 32 | self._read[rows]
        order = np.argsort(kinds, kind="stable")
        _, first, counts = np.unique(kinds[order], return_index=True, return_counts=True)
        per_kind = -(-counts // LANES)
        begins = np.cumsum(per_kind) - per_kind
        used = int(per_kind.sum())
        tiles = _power_of_two(used)
        # The rows of one kind fill its tiles from the front.
        lanes = np.zeros(len(rows), dtype=np.int32)
        lanes[order] = np.repeat(begins * LANES, counts) + np.arange(len(rows)) - np.repeat(first, counts)
        members = np.full(tiles * LANES, -1, dtype=np.int32)
        members[lanes] = rows
        images, lengths = np.zeros(tiles, dtype=np.int32), np.zeros(tiles, dtype=np.int32)
        images[:used] = np.repeat(self._image_of[rows[order]][first], per_kind)
        lengths[:used] = np.repeat(self._read[rows[order]][first], per_kind)
        return members.reshape(tiles, LANES), images, lengths, lanes


def _power_of_two(count: int) -> int:
    """As many or more, at least 1: sizes of few kinds, that graphs are few."""
    return 1 << (count - 1).bit_length()
