"""The grid on a GPU: prompts and captions in pages of one pool, any image in any row, one graph for all lengths.

What an image's prompt left in the KV cache lies in pages that all rows of the image read; what a row has generated lies
in pages of its own, taken one after the other as the caption grows, so that memory follows what was written and a long
caption costs what is in it. A row's text begins with a copy of the last prompt token, or with the prompt tokens that
it runs itself, so that the position before any generated token is always the one before in the text.

The host knows at every step how long each caption is and where its pages are; it sends all of that ahead of the step in
one copy, and a step has a fixed shape whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.forced import NO_TOKEN, ForcedTokens
from kvtune.captioning.graphs import step_graphs
from kvtune.captioning.greedy import choose
from kvtune.captioning.kernels import kernels_for
from kvtune.captioning.paged_attention import LANES, Layout
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.paged_step import ActingTiles, PagedStep
from kvtune.captioning.pages import PAGE, Pages, pages_for
from kvtune.captioning.prefill import decoder_of
from kvtune.captioning.prefix import KnownPrompts, Prefix
from kvtune.captioning.step import KeysOnly
from kvtune.hf import CACHE
from kvtune.methods import Method
from kvtune.methods.row_methods import RowMethods, captured_with, looking_at_layers
from kvtune.methods.row_state import RowState
from kvtune.methods.seen import position_classes
from kvtune.methods.sending import pinned, to_device
from kvtune.models import VisionLanguageModel

_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step where few are left; above, multiples of :data:`_WIDTH`."""

_WIDTH = 128
"""Rows of a step come in multiples of so many, in which matrix products are fastest, and of which few graphs are."""


_ALIGNED = 4
"""Numbers of 4 bytes in whose multiples the parts of a layout begin; elsewhere Triton would build kernels anew."""


class PagedGrid(KnownPrompts):
    """Tensors of ``plan.rows`` captions and ``plan.pages`` pages, and the decode step.

    Attributes
    ----------
    keys, values
        [layers, pages + 1, kv_heads, PAGE, head_dim]; page 0 is nobody's.
    pages
        Who holds which of them: ``("row", n)`` and ``("image", n)``.
    """

    def __init__(self, vlm: VisionLanguageModel, plan: PagedPlan, cuda_graphs: bool = True) -> None:
        super().__init__()
        self.vlm, self.plan, self.rows, self.images = vlm, plan, plan.rows, plan.rows
        config, device = vlm.decoder.config, vlm.device
        self.n_layers = vlm.n_layers
        self._embed = vlm.hf_model.get_input_embeddings()
        self._head = vlm.hf_model.get_output_embeddings()
        kv_heads = config.num_key_value_heads
        shape = (self.n_layers, plan.pages + 1, kv_heads, PAGE, vlm.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=vlm.dtype, device=device) for _ in range(2))
        self.pages = Pages(plan.pages)
        share = config.num_attention_heads // kv_heads
        self.kernels = kernels_for(device, vlm.dtype, kv_heads, share, vlm.head_dim)

        self.newest = np.full(self.rows, -1, dtype=np.int32)
        """Position of each row's newest token in its text; -1 for a row that stands idle."""
        self._image_of = np.zeros(self.rows, dtype=np.int32)
        self._read = np.zeros(self.rows, dtype=np.int32)
        """Prompt tokens that each row reads in its image's pages."""
        self._table = np.zeros((self.rows, plan.text_pages), dtype=np.int32)
        self._prompt_table = torch.zeros(self.images, 1, dtype=torch.int32, device=device)
        self._classes = torch.zeros(3, self.images, PAGE, dtype=torch.bool, device=device)
        self._tokens = torch.zeros(self.rows, dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self._tokens)
        self._layout = torch.zeros(self._layout_size(self.rows, 2 * self.rows), dtype=torch.int32, device=device)
        self.forced = ForcedTokens(self.rows)
        self.methods = RowMethods(self.rows + 1, decoder_of(vlm), device)
        self._graphs = step_graphs(device) if cuda_graphs else None

    def clear(self) -> None:
        """Be as a new grid for another run, but for the graphs that are captured."""
        self.pages = Pages(self.plan.pages)
        self.newest[:] = -1
        self._table[:] = 0
        self._prompts.clear()
        self.methods.clear()

    def reserve(self, image: int, length: int) -> bool:
        """Take the pages of a prompt of ``length`` tokens; False if there are not enough."""
        if pages_for(length) > self.pages.free:
            return False
        self.pages.take(("image", image), pages_for(length))
        return True

    def load(self, image: int, prefix: Prefix) -> None:
        """Write a prompt's keys and values into the pages that are reserved for it."""
        own = self.pages.of(("image", image))
        missing = len(own) - self._prompt_table.shape[1]
        if missing > 0:
            self._prompt_table = torch.nn.functional.pad(self._prompt_table, (0, missing))
            self._classes = torch.nn.functional.pad(self._classes, (0, missing * PAGE))
        pages = to_device(np.array(own), self.vlm.device)
        self._prompt_table[image, : len(own)] = pages
        classes = position_classes(prefix.end.facts.visual)
        self._classes[:, image] = torch.nn.functional.pad(classes, (0, self._classes.shape[2] - prefix.length))
        for cache, new in ((self.keys, prefix.keys), (self.values, prefix.values)):
            filled = torch.nn.functional.pad(new, (0, 0, 0, len(own) * PAGE - prefix.length))
            cache[:, pages] = filled.unflatten(2, (len(own), PAGE)).transpose(1, 2)
        self._prompts[image] = prefix.end

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int | None]:
        """Begin a caption in each of ``rows``, each about one of the prompts on the grid and with its method.

        Returns
        -------
        list
            The first token of each, which the prefill has given; None where the method acts on the prompt, so that the
            row runs the end of it itself.
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
        index, to_page, from_page, place, tokens, positions = to_device(
            np.array(
                [
                    rows,
                    own,
                    from_pages,
                    [place for _, place in last],
                    [prompt.first_token for prompt in prompts],
                    [prompt.next_position - len(ids) for prompt, ids in zip(prompts, forced, strict=True)],
                ]
            ),
            self.vlm.device,
        )
        for cache in (self.keys, self.values):
            cache[:, to_page, :, 0] = cache[:, from_page, :, place].transpose(0, 1)
        self._tokens[index], self._positions[index] = tokens, positions
        self.methods.start(rows, methods, [prompt.facts for prompt in prompts])
        return [None if ids else prompt.first_token for prompt, ids in zip(prompts, forced, strict=True)]

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
        for name in ("_tokens", "_positions"):
            tensor = getattr(self, name)
            tensor.copy_(tensor[index])
        with_nobody = np.append(order, self.rows)
        self.methods.move(with_nobody, to_device(with_nobody, self.vlm.device))
        self.forced.move(order)
        for name in ("newest", "_image_of", "_read", "_table"):
            setattr(self, name, getattr(self, name)[order])
        for row in order.tolist():
            self.pages.hand_over(("row", row), ("moved", row))
        for row, before in enumerate(order.tolist()):
            self.pages.hand_over(("moved", before), ("row", row))

    def step(self, running: np.ndarray) -> Tensor:
        """Decode one token in each row of ``running`` (row numbers), which has a page for it.

        Returns
        -------
        Tensor
            [rows of the step], the tokens that come next; the next step overwrites them.
        """
        width, states = self.width(running), self.methods.of(running)
        tiles, acting = self._send_layout(running, width)
        if self._graphs is None:
            self._decode(width, tiles, states, acting)
        else:
            tensors = [(tensor.data_ptr(), tensor.shape) for tensor in (self._prompt_table, self._classes)]
            acts = [(*map(type, one.states), one.first, one.last) for one in acting]
            shape = (width, tiles, *tensors, *acts, *captured_with(states))
            self._graphs.run(shape, lambda: self._decode(width, tiles, states, acting))
        self.newest[running] += 1
        self.forced.advance(running)
        return self._tokens[:width]

    def width(self, running: np.ndarray, moved: bool = False) -> int:
        """Rows of a step in which ``running`` decode: all of them if a method of theirs changes outputs.

        With ``moved``, if they stood side by side.
        """
        if any(state.changes_output for state in self.methods.of(running)):
            return self.rows
        needed = len(running) if moved else int(running.max()) + 1
        wide = next((width for width in _WIDTHS if width >= needed), -(-needed // _WIDTH) * _WIDTH)
        return min(wide, self.rows)

    def _decode(self, width: int, tiles: int, states: Sequence[RowState[Any]], acting: Sequence[ActingTiles]) -> None:
        """The step on the device: no shape, and nothing that Python decides, depends on what the tensors hold."""
        layout, forced, to_come = self._on_device(width, tiles)
        to_come = torch.nn.functional.pad(to_come, (0, self.rows + 1 - width), value=-1)
        step = PagedStep(layout, self.keys, self.values, self.kernels, states, acting, self._classes, to_come)
        tokens, positions = self._tokens[:width], self._positions[:width]
        fed = torch.where(forced == NO_TOKEN, tokens, forced).clamp(min=0)
        with looking_at_layers(self.methods.decoder, states):
            hidden = self.vlm.decoder(
                inputs_embeds=self._embed(fed)[:, None],
                position_ids=positions[:, None],
                **{CACHE: KeysOnly()},
                use_cache=True,
                kvtune_grid=step,
            ).last_hidden_state
        tokens.copy_(choose(self._head(hidden[:, 0])))
        for state in states:
            if state.layers:
                state.end_step(step)
        positions += 1

    def _send_layout(self, running: np.ndarray, width: int) -> tuple[int, list[ActingTiles]]:
        """Tell the device where the rows of this step are.

        Returns
        -------
        tuple
            The number of tiles that they stand in, and which of those have methods that change scores or weights.
        """
        rest = running
        groups = self.methods.on_attention(running)
        for _, rows in groups:
            rest = np.setdiff1d(rest, rows)
        lanes_of_rows = np.zeros(width, dtype=np.int32)
        acting: list[ActingTiles] = []
        members, images, lengths = [], [], []
        tiles = 0
        for states, rows in [([], rest), *groups] if len(rest) else groups:
            part, part_images, part_lengths, lanes = self._tiles_of(rows)
            lanes_of_rows[rows] = lanes + tiles * LANES
            if states:
                acting.append(ActingTiles(states, tiles, tiles + len(part)))
            tiles += len(part)
            members.append(part)
            images.append(part_images)
            lengths.append(part_lengths)
        newest = np.full(width, -1, dtype=np.int32)
        newest[running] = self.newest[running]
        forced = np.full(width, NO_TOKEN, dtype=np.int32)
        forced[running] = self.forced.next(running)
        to_come = np.full(width, -1, dtype=np.int32)
        to_come[running] = self.forced.to_come(running)
        # A row that is not running has pages still if its last token has not been looked at; it writes into nobody's.
        table = np.where(newest[:, None] >= 0, self._table[:width], 0)
        parts = (
            newest,
            lanes_of_rows,
            forced,
            to_come,
            table.ravel(),
            *(np.concatenate(of_tiles).ravel() for of_tiles in (images, lengths, members)),
        )
        sent = np.concatenate([np.pad(part, (0, -len(part) % _ALIGNED)) for part in parts])
        self._layout[: len(sent)].copy_(pinned(sent, self.vlm.device), non_blocking=True)
        return tiles, acting

    def _tiles_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tiles for rows, each of one image and one length that is read of its prompt: their members, [tiles, lanes],
        images and lengths, a power of two of them; and the lane of each of ``rows`` among them."""
        kinds = self._image_of[rows].astype(np.int64) << 32 | self._read[rows]
        order = np.argsort(kinds, kind="stable")
        _, first, counts = np.unique(kinds[order], return_index=True, return_counts=True)
        per_kind = -(-counts // LANES)
        begins = np.cumsum(per_kind) - per_kind
        used = int(per_kind.sum())
        tiles = 1 << (used - 1).bit_length()
        # The rows of one kind fill its tiles from the front.
        lanes = np.zeros(len(rows), dtype=np.int32)
        lanes[order] = np.repeat(begins * LANES, counts) + np.arange(len(rows)) - np.repeat(first, counts)
        members = np.full(tiles * LANES, -1, dtype=np.int32)
        members[lanes] = rows
        images, lengths = np.zeros(tiles, dtype=np.int32), np.zeros(tiles, dtype=np.int32)
        images[:used] = np.repeat(self._image_of[rows[order]][first], per_kind)
        lengths[:used] = np.repeat(self._read[rows[order]][first], per_kind)
        return members.reshape(tiles, LANES), images, lengths, lanes

    def _on_device(self, width: int, tiles: int) -> tuple[Layout, Tensor, Tensor]:
        """The views of what :meth:`_send_layout` sent: where rows are, what they are fed, and what is to come after."""
        sizes = self._layout_sizes(width, tiles)
        padded = self._layout[: self._layout_size(width, tiles)].split([size + -size % _ALIGNED for size in sizes])
        newest, lanes_of_rows, forced, to_come, table, images, lengths, members = (
            part[:size] for part, size in zip(padded, sizes, strict=True)
        )
        layout = Layout(
            newest,
            table.view(width, -1),
            members.view(tiles, LANES),
            images,
            lengths,
            lanes_of_rows,
            self._prompt_table,
        )
        return layout, forced, to_come

    def _layout_size(self, width: int, tiles: int) -> int:
        return sum(size + -size % _ALIGNED for size in self._layout_sizes(width, tiles))

    def _layout_sizes(self, width: int, tiles: int) -> list[int]:
        return [*[width] * 4, width * self._table.shape[1], tiles, tiles, tiles * LANES]
