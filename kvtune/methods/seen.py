"""What the newest token of some rows looks back on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class SeenPositions:
    """The positions that the newest token of ``n`` rows sees.

    Prompt positions come first, and all others are after the image. Where a prompt is run as a whole, a row is there
    once for each token on which a method acts.

    Attributes
    ----------
    rows
        [n], indices of the rows in the batch.
    classes
        [3, n, prompt positions] bool: before the first visual token, visual tokens, after the last one.
    read
        [n]: prompt tokens that the row sees at prompt positions; those that it runs itself begin what is after.
    to_come
        [n]: prompt tokens that come after the newest; 0 for the last one, -1 for a token that was generated.
    span
        The rows, where they lie side by side and the host knows it; None elsewhere.
    newest
        [rows], places among the n of each row's last token; None where each row is there once.
    """

    rows: Tensor
    classes: Tensor
    read: Tensor
    to_come: Tensor
    span: slice | None = None
    newest: Tensor | None = None
    _made: dict[Hashable, object] = dataclasses.field(default_factory=dict)

    @property
    def prompt(self) -> int:
        """Prompt positions."""
        return self.classes.shape[2]

    @property
    def system(self) -> Tensor:
        """[n, prompt positions] bool: before the first visual token."""
        return self.classes[0]

    @property
    def visual(self) -> Tensor:
        """[n, prompt positions] bool: visual tokens."""
        return self.classes[1]

    @property
    def after(self) -> Tensor:
        """[n, prompt positions] bool: after the last visual token."""
        return self.classes[2]

    def of_rows(self, tensor: Tensor) -> Tensor:
        """What a tensor of all rows of the batch, on its first axis, has for those that look."""
        return tensor[self.rows] if self.span is None else tensor[self.span]

    def of_newest(self, tensor: Tensor) -> Tensor:
        """What a tensor with n on its first axis has for the last token of each row.

        For what a method notes of a row: of two numbers that are written to one place, a GPU keeps any.
        """
        return tensor if self.newest is None else tensor[self.newest]

    def on_visual(self, like: Tensor) -> Tensor:
        """[n, 1, prompt positions] in the type of ``like``: 1 on visual tokens, else 0."""
        return self.once("visual", lambda: self.visual[:, None].to(like.dtype))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, made in the first layer of a step that asks, and kept for the others."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]  # type: ignore[assignment]
        return found

    def take(self, key: Hashable, other: SeenPositions) -> None:
        """Have what ``other``, the same rows on another card, made for ``key``."""
        self._made[key] = other._made[key].to(self.rows.device)  # type: ignore[attr-defined]

    def in_layer(self, layer: int, query: Tensor, scaling: float) -> Seen:
        """The same in a layer, with the query there."""
        return Seen(**vars(self), layer=layer, query=query, scaling=scaling)


@dataclasses.dataclass(frozen=True)
class Seen(SeenPositions):
    """What the newest token of ``n`` rows sees in one layer, and with which query.

    Attributes
    ----------
    layer
        0-based.
    query
        [n, heads, head_dim], turned by its position, not scaled.
    scaling
        What products of queries and keys are multiplied with.
    """

    layer: int = dataclasses.field(kw_only=True)
    query: Tensor = dataclasses.field(kw_only=True)
    scaling: float = dataclasses.field(kw_only=True)


def position_classes(visual: Tensor) -> Tensor:
    """Positions before the first visual one, visual ones and those after the last, [3, ..., positions] bool.

    Without any visual position, all are before.
    """
    until = visual.flip(-1).cumsum(-1).flip(-1) > 0  # a visual one here or later
    since = visual.cumsum(-1) > 0
    return torch.stack([~since, visual, since & ~until])
