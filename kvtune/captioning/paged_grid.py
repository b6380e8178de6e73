"""The grid on a GPU: prompts and captions in pages of one pool, any image in any row, one graph for all lengths.

What an image's prompt left in the KV cache lies in pages that all rows of the image read; what a row has generated lies
in pages of its own, taken one after the other as the caption grows, so that memory follows what was written and a long
caption costs what is in it. A row's text begins with a copy of the last prompt token, so that the position before any
generated token is always the one before in the text.

The host knows at every step how long each caption is and where its pages are; it sends all of that ahead of the step in
one copy, and a step has a fixed shape whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kvtune.captioning.graphs import step_graphs
from kvtune.captioning.greedy import choose
from kvtune.captioning.kernels import kernels_for
from kvtune.captioning.paged_attention import LANES, Layout
from kvtune.captioning.paged_plan import PagedPlan
from kvtune.captioning.paged_step import PagedStep
from kvtune.captioning.pages import PAGE, Pages, pages_for
from kvtune.captioning.prefix import Prefix, PromptEnd
from kvtune.captioning.step import KeysOnly
from kvtune.hf import CACHE
from kvtune.methods import Method, RowState
from kvtune.methods.sending import pinned, to_device
from kvtune.models import VisionLanguageModel

_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step where few are left; above, multiples of :data:`_WIDTH`."""

_WIDTH = 128
"""Rows of a step come in multiples of so many, in which matrix products are fastest, and of which few graphs are."""


_ALIGNED = 4
"""Numbers of 4 bytes in whose multiples the parts of a layout begin; elsewhere Triton would build kernels anew."""


class PagedGrid:
    """Tensors of ``plan.rows`` captions and ``plan.pages`` pages, and the decode step.

    Attributes
    ----------
    keys, values
        [layers, pages + 1, kv_heads, PAGE, head_dim]; page 0 is nobody's.
    pages
        Who holds which of them: ``("row", n)`` and ``("image", n)``.
    """

    def __init__(self, vlm: VisionLanguageModel, plan: PagedPlan, cuda_graphs: bool = True) -> None:
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

        self.newest = np.zeros(self.rows, dtype=np.int32)
        """Position of each row's newest token in its text; 0 for a row that stands idle."""
        self._image_of = np.zeros(self.rows, dtype=np.int32)
        self._kind_of = np.full(self.rows, -1)
        """Which of the kinds of methods in ``states`` each row has, in their order; -1 for none."""
        self._table = np.zeros((self.rows, pages_for(plan.max_new_tokens + 1)), dtype=np.int32)
        self._prompts: dict[int, PromptEnd] = {}
        self._prompt_table = torch.zeros(self.images, 1, dtype=torch.int32, device=device)
        self._prompt_lengths = torch.zeros(self.images, dtype=torch.int32, device=device)
        self._tokens = torch.zeros(self.rows, dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self._tokens)
        self._layout = torch.zeros(self._layout_size(self.rows, 2 * self.rows), dtype=torch.int32, device=device)
        self.states: dict[type[Method], RowState] = {}
        self._graphs = step_graphs(device) if cuda_graphs else None

    def clear(self) -> None:
        """Be as a new grid for another run, but for the graphs that are captured."""
        self.pages = Pages(self.plan.pages)
        self.newest[:] = 0
        self._table[:] = 0
        self._prompts.clear()
        self._kind_of[:] = -1
        # What smooths outputs takes steps of all rows, whoever is in them.
        self.states = {kind: state for kind, state in self.states.items() if not state.smooths_output}

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
        pages = to_device(np.array(own), self.vlm.device)
        self._prompt_table[image, : len(own)] = pages
        self._prompt_lengths[image : image + 1].fill_(
            prefix.length - 1
        )  # a single number put there would be waited for
        for cache, new in ((self.keys, prefix.keys), (self.values, prefix.values)):
            filled = torch.nn.functional.pad(new, (0, 0, 0, len(own) * PAGE - prefix.length))
            cache[:, pages] = filled.unflatten(2, (len(own), PAGE)).transpose(1, 2)
        self._prompts[image] = prefix.end

    def start(self, rows: Sequence[int], images: Sequence[int], methods: Sequence[Method | None]) -> list[int]:
        """Begin a caption in each of ``rows``, each about one of the prompts on the grid and with its method.

        Returns
        -------
        list of int
            The first token of each, which the prefill has given.
        """
        prompts = [self._prompts[image] for image in images]
        own = [self.pages.take(("row", row), 1)[0] for row in rows]
        self._image_of[rows] = images
        self.newest[rows] = 1
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
                    [prompt.next_position for prompt in prompts],
                ]
            ),
            self.vlm.device,
        )
        for cache in (self.keys, self.values):
            cache[:, to_page, :, 0] = cache[:, from_page, :, place].transpose(0, 1)
        self._tokens[index], self._positions[index] = tokens, positions
        for kind in {type(method) for method in methods if method is not None} - set(self.states):
            self.states[kind] = kind.row_state(self.rows, self.n_layers, self.vlm.device)
        kinds = list(self.states)
        self._kind_of[rows] = [-1 if method is None else kinds.index(type(method)) for method in methods]
        for kind, state in self.states.items():
            state.set_rows(rows, [method if type(method) is kind else None for method in methods])
            if state.smooths_output:
                outputs = torch.stack([prompt.outputs for prompt in prompts], dim=1)
                for layer in range(self.n_layers):
                    state.start_outputs(index, layer, outputs[layer])
        return [prompt.first_token for prompt in prompts]

    def release(self, row: int) -> None:
        """The caption in ``row`` is done, or given up; its pages are free and it stands idle."""
        self.pages.give_back(("row", row))
        self.newest[row] = 0
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
        for state in self.states.values():
            state.reorder(index)
        self.newest, self._image_of, self._table = self.newest[order], self._image_of[order], self._table[order]
        self._kind_of = self._kind_of[order]
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
        width, states = self.width(running), self._states_of(running)
        tiles = self._send_layout(running, width)
        if self._graphs is None:
            self._decode(width, tiles, states)
        else:
            tensors = (self._prompt_table.data_ptr(), self._prompt_table.shape)
            captured = [state.captured_with() for state in states]
            self._graphs.run((width, tiles, tensors, *captured), lambda: self._decode(width, tiles, states))
        self.newest[running] += 1
        return self._tokens[:width]

    def width(self, running: np.ndarray, moved: bool = False) -> int:
        """Rows of a step in which ``running`` decode: all of them if a method of theirs smooths outputs.

        With ``moved``, if they stood side by side.
        """
        if any(state.smooths_output for state in self._states_of(running)):
            return self.rows
        needed = len(running) if moved else int(running.max()) + 1
        wide = next((width for width in _WIDTHS if width >= needed), -(-needed // _WIDTH) * _WIDTH)
        return min(wide, self.rows)

    def _states_of(self, running: np.ndarray) -> list[RowState]:
        """What the methods of ``running`` remember; a step of rows without a method costs nothing for one."""
        present = set(self._kind_of[running].tolist())
        return [state for kind, state in enumerate(self.states.values()) if kind in present]

    def _decode(self, width: int, tiles: int, states: Sequence[RowState]) -> None:
        """The step on the device: no shape, and nothing that Python decides, depends on what the tensors hold."""
        layout = self._on_device(width, tiles)
        step = PagedStep(layout, self.keys, self.values, self.kernels, states)
        tokens, positions = self._tokens[:width], self._positions[:width]
        hidden = self.vlm.decoder(
            inputs_embeds=self._embed(tokens.clamp(min=0))[:, None],
            position_ids=positions[:, None],
            **{CACHE: KeysOnly()},
            use_cache=True,
            kvtune_grid=step,
        ).last_hidden_state
        tokens.copy_(choose(self._head(hidden[:, 0])))
        for state in states:
            if state.layers:
                entropy = torch.stack([step.entropies[layer] for layer in state.layers]).mean(-1)
                on_keys, on_values = state.factors(torch.nn.functional.pad(entropy, (0, self.rows - width)))
                self.kernels.smooth(
                    self.keys,
                    self.values,
                    layout.table,
                    layout.newest,
                    on_keys[:, :width],
                    on_values[:, :width],
                    state.layers.start,
                )
        positions += 1

    def _send_layout(self, running: np.ndarray, width: int) -> int:
        """Tell the device where the rows of this step are; the number of tiles that they stand in."""
        images = self._image_of[running]
        order = np.argsort(images, kind="stable")
        _, first, counts = np.unique(images[order], return_index=True, return_counts=True)
        per_image = -(-counts // LANES)
        begins = np.cumsum(per_image) - per_image
        used = int(per_image.sum())
        tiles = 1 << (used - 1).bit_length()
        # Each image's rows fill its tiles from the front.
        within = np.arange(len(running)) - np.repeat(first, counts)
        lanes = np.repeat(begins * LANES, counts) + within
        newest = np.zeros(width, dtype=np.int32)
        newest[running] = self.newest[running]
        lanes_of_rows = np.zeros(width, dtype=np.int32)
        lanes_of_rows[running[order]] = lanes
        members = np.full(tiles * LANES, -1, dtype=np.int32)
        members[lanes] = running[order]
        tile_images = np.zeros(tiles, dtype=np.int32)
        tile_images[:used] = np.repeat(images[order][first], per_image)
        # A row that is not running has pages still if its last token has not been looked at; it writes into nobody's.
        table = np.where(newest[:, None] > 0, self._table[:width], 0)
        parts = (newest, lanes_of_rows, table.ravel(), tile_images, members)
        sent = np.concatenate([np.pad(part, (0, -len(part) % _ALIGNED)) for part in parts])
        self._layout[: len(sent)].copy_(pinned(sent, self.vlm.device), non_blocking=True)
        return tiles

    def _on_device(self, width: int, tiles: int) -> Layout:
        """The views of what :meth:`_send_layout` sent."""
        sizes = self._layout_sizes(width, tiles)
        padded = self._layout[: self._layout_size(width, tiles)].split([size + -size % _ALIGNED for size in sizes])
        newest, lanes_of_rows, table, tile_images, members = (
            part[:size] for part, size in zip(padded, sizes, strict=True)
        )
        return Layout(
            newest,
            table.view(width, -1),
            members.view(tiles, LANES),
            tile_images,
            lanes_of_rows,
            self._prompt_table,
            self._prompt_lengths,
        )

    def _layout_size(self, width: int, tiles: int) -> int:
        return sum(size + -size % _ALIGNED for size in self._layout_sizes(width, tiles))

    def _layout_sizes(self, width: int, tiles: int) -> list[int]:
        return [width, width, width * self._table.shape[1], tiles, tiles * LANES]
