"""How large a grid fits into memory, by calculation; of a CPU here, of a GPU in :mod:`kvtune.captioning.paged_plan`."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from kvtune.captioning.cost_model import lanes_by_image
from kvtune.host_memory import host_memory
from kvtune.models import VisionLanguageModel
from kvtune.models.options import Lanes
from kvtune.text import number_of

PREFILL_BATCH = 8
"""Images whose prompts are run together at most."""

PREFILL_TOKENS = 5120
"""Prompt tokens that are run together at most, unless one prompt alone has more; beyond some thousands, a batch takes
memory from the cache and brings no speed."""

MOST_ROWS = 1024
"""Rows above which a step takes as much longer as it has more rows, and larger grids bring nothing."""

PLANNED_SLOTS = 128
"""Positions of a caption that the plan allows for; CHAIR captions run to some 100 tokens, a rare longer one makes the
cache grow, which costs a copy."""

_SLOTS_STEP = 32
"""Slots come in steps of so many."""

USABLE = 0.6
"""Share of a CPU's free memory that the grid may take; a quarter is for kept prompts."""


@dataclasses.dataclass(frozen=True)
class GridPlan:
    """A grid and what it takes.

    Attributes
    ----------
    groups, lanes
        Images on the grid, and captions decoded at once for each.
    prompt_tokens, slots
        Positions of a prompt and of a caption that there is room for before their caches must grow.
    weights
        Bytes of the model.
    prefixes, suffixes
        Bytes of all prompts' keys and values, and of all captions' keys and values.
    step, prefill
        Bytes that a decode step, or the prefill of a batch of images, takes for a moment beside those.
    states
        Bytes of what methods remember of all rows.
    growth
        Bytes on top of all these while the caches grow, should a caption run on to the limit.
    """

    groups: int
    lanes: int
    prompt_tokens: int
    slots: int
    weights: int
    prefixes: int
    suffixes: int
    step: int
    prefill: int
    growth: int
    states: int = 0

    @property
    def rows(self) -> int:
        """Captions decoded at once."""
        return self.groups * self.lanes

    @property
    def peak(self) -> int:
        """Most bytes that are held at once as long as no caption outgrows its slots."""
        return self.weights + self.prefixes + self.suffixes + self.states + max(self.step, self.prefill)

    def smaller(self) -> GridPlan | None:
        """A plan of half the images, or of half the captions of one; None if there is one caption."""
        if self.groups > 1:
            return dataclasses.replace(self, groups=self.groups // 2)
        return dataclasses.replace(self, lanes=self.lanes // 2) if self.lanes > 1 else None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"peak": self.peak}

    def __str__(self) -> str:
        text = (
            f"{number_of(self.groups, 'image')} by {number_of(self.lanes, 'caption')}: at most "
            f"{megabytes(self.peak)} (weights {megabytes(self.weights)}, prompts {megabytes(self.prefixes)}, "
            f"captions {megabytes(self.suffixes)}, activations {megabytes(max(self.step, self.prefill))})"
        )
        if self.growth:
            text += f", {megabytes(self.growth)} more if captions outgrow {self.slots - 1} tokens"
        return text


def plan_grid(
    vlm: VisionLanguageModel,
    prompt_tokens: int,
    max_new_tokens: int,
    requests: int,
    images: int,
    lanes: Lanes = "auto",
    row_state: int = 0,
) -> GridPlan:
    """The grid for a stream in which ``requests`` are about ``images``.

    As :func:`kvtune.captioning.cost_model.lanes_by_image` has it, unless memory is too small for that.

    Parameters
    ----------
    prompt_tokens
        Length of the longest prompt, visual tokens included.
    lanes
        Captions decoded at once over the whole grid; ``auto`` takes what fits into the free memory with captions as
        long as they may get, for nobody says in time that a CPU's memory is out.
    row_state
        Bytes that methods remember of a row.
    """
    shape = lanes_by_image(most_rows(lanes), requests, images)
    plan = predict(vlm, shape.groups, shape.lanes, prompt_tokens, max_new_tokens, row_state)
    if lanes != "auto":
        return plan
    usable = int(USABLE * free_memory(vlm.device))
    while plan.rows > 1 and plan.peak - plan.weights + plan.growth > usable:
        smaller = (plan.groups - 1, plan.lanes) if plan.groups > 1 else (1, plan.lanes - 1)
        plan = predict(vlm, *smaller, prompt_tokens, max_new_tokens, row_state)
    return plan


def most_rows(lanes: Lanes) -> int:
    """Captions at once, if memory holds them."""
    return MOST_ROWS if lanes == "auto" else lanes


def predict(
    vlm: VisionLanguageModel, groups: int, lanes: int, prompt_tokens: int, max_new_tokens: int, row_state: int = 0
) -> GridPlan:
    """What a grid of ``groups`` images by ``lanes`` captions takes."""
    position, rows = bytes_per_position(vlm), groups * lanes
    slots = -(-min(max_new_tokens + 1, PLANNED_SLOTS) // _SLOTS_STEP) * _SLOTS_STEP
    # Beside its suffix a row has the keys and values of this step and of the step before.
    suffixes = rows * (slots + 2) * position
    outputs = vlm.n_layers * groups * vlm.heads.heads * vlm.head_dim * vlm.dtype.itemsize
    growth = 0
    if max_new_tokens >= PLANNED_SLOTS:
        # Keys have grown to twice the slots, and values are copied into as many.
        growth = rows * (2 * (slots + 1) * position - slots * position // 2)
    return GridPlan(
        groups,
        lanes,
        prompt_tokens,
        slots,
        weights=weight_bytes(vlm),
        prefixes=groups * prompt_tokens * position + outputs,
        suffixes=suffixes,
        step=rows * step_bytes(vlm, prompt_tokens, slots),
        prefill=prefill_bytes(vlm, min(groups, prompts_together(prompt_tokens)), prompt_tokens),
        growth=growth,
        states=rows * row_state,
    )


def prompts_together(prompt_tokens: int, most_tokens: int | None = None) -> int:
    """Prompts of so many tokens, or fewer, that are run as one batch of ``most_tokens``, :data:`PREFILL_TOKENS` if that
    is not said."""
    return max(1, min(PREFILL_BATCH, (most_tokens or PREFILL_TOKENS) // prompt_tokens))


def weight_bytes(vlm: VisionLanguageModel, device: torch.device | None = None) -> int:
    """Bytes of a model's weights, those on one device if it is given."""
    weights = [weight for weight in vlm.hf_model.parameters() if device is None or weight.device == device]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def bytes_per_position(vlm: VisionLanguageModel, layers: int | None = None) -> int:
    """Bytes that one token's keys and values take in so many layers; in all if it is not said."""
    layers = vlm.n_layers if layers is None else layers
    _, kv_heads, head_dim = vlm.heads
    return 2 * layers * kv_heads * head_dim * vlm.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that may still be allocated on ``device``.

    What PyTorch has cached of a GPU's is not among them: it is for the stream that had it before, as that of vision
    towers, and graphs have theirs.
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host_memory().free


def free_cached_memory() -> None:
    """Give back what nobody holds any more: also what a frame and its error hold of each other, and what is cached."""
    gc.collect()
    with suppress(RuntimeError):  # after some errors a GPU answers everything with the same error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def step_bytes(vlm: VisionLanguageModel, prompt_tokens: int, slots: int) -> int:
    """Bytes a row's activations take at the peak of a decode step: in attention, in the MLP, or for the logits."""
    config, size = vlm.decoder.config, vlm.dtype.itemsize
    heads, hidden = vlm.heads.heads, config.hidden_size
    scores = 0
    if vlm.device.type != "cuda":  # there the kernels keep them on the chip
        # Scores and their exponentials in at least float32, and these again in the model's type.
        scores = 2 * max(4, size) + (size if size < 4 else 0)
    attention = heads * ((prompt_tokens + slots) * scores + 6 * vlm.head_dim * size)
    return max(attention, mlp_numbers(config) * size, config.vocab_size * size) + 3 * hidden * size


def prefill_bytes(vlm: VisionLanguageModel, images: int, prompt_tokens: int, layers: int | None = None) -> int:
    """Bytes that a batch of prompts takes in the decoder: keys, values and the widest layer, or one prompt's copy.

    Keys and values are those of so many layers; of all if it is not said.
    """
    config, size, position = vlm.decoder.config, vlm.dtype.itemsize, bytes_per_position(vlm, layers)
    tokens = images * prompt_tokens
    layer = tokens * (mlp_numbers(config) + 7 * config.hidden_size) * size + tokens * prompt_tokens
    return tokens * position + max(layer, prompt_tokens * position)


def mlp_numbers(config: Any) -> int:
    """Numbers that a token takes for a moment in an MLP of a text decoder, or in all experts that it goes through."""

    def widest(name: str) -> int:
        try:
            size = getattr(config, name, None)
        except RuntimeError:  # transformers' word for a size that differs between layers
            size = None
        return max(size) if isinstance(size, Sequence) else size or 0

    inner = widest("intermediate_size") or 4 * config.hidden_size
    of_expert = widest("moe_intermediate_size") or inner
    return max(3 * inner, widest("num_experts_per_tok") * (3 * of_expert + 2 * config.hidden_size))


def megabytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
