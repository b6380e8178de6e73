"""What a method remembers of each row while a batch decodes, and where it may act."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import numpy as np

from kvtune.methods.sending import to_device

if TYPE_CHECKING:
    from torch import Tensor

    from kvtune.methods.decoder import Decoder
    from kvtune.methods.facts import AnyFact, PromptFacts
    from kvtune.methods.parameters import Parameter
    from kvtune.methods.seen import Seen, SeenPositions

M = TypeVar("M", bound="ActingMethod")

ActsFrom = Literal["generated", "last_prompt_token", "after_image"]
"""The first token on which a method acts."""

MOST_TO_COME: dict[ActsFrom, float] = {"generated": -1, "last_prompt_token": 0, "after_image": float("inf")}
"""Prompt tokens that may come after the newest one where a method acts, by what it acts from."""


class ActingMethod(Protocol):
    """What those who decode ask of a method; see :class:`kvtune.methods.Method`."""

    name: ClassVar[str]
    acts_from: ClassVar[ActsFrom]

    @property
    def parts(self) -> tuple[ActingMethod, ...]: ...

    @property
    def facts(self) -> tuple[AnyFact, ...]: ...

    @classmethod
    def declared(cls) -> Mapping[str, Parameter]: ...

    def check_model(self, decoder: Decoder) -> None: ...

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int: ...

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> RowState[Any]: ...


def first_acting(method: ActingMethod | None) -> ActsFrom:
    """From which token on a method, or any of a stack, acts."""
    order: tuple[ActsFrom, ...] = ("after_image", "last_prompt_token", "generated")
    return min((part.acts_from for part in (method.parts if method else ())), key=order.index, default="generated")


class StepEnd(Protocol):
    """A decode step when all layers are through."""

    @property
    def generated(self) -> Tensor:
        """[rows] bool: whether the token was generated, and not one of the prompt's that the row runs itself."""

    def entropies(self, layers: range) -> Tensor:
        """[layers, rows]: entropy of each row's attention weights, natural log, mean over heads."""

    def draw(self, layers: range, on_keys: Tensor, on_values: Tensor) -> None:
        """Draw the newest key and value towards those before: ``x[t] <- (1 - f) x[t] + f x[t - 1]`` in the cache.

        Factors f are [layers, rows], in [0, 1]; 0 leaves a row as it is.
        """


_STATES = itertools.count()
"""Numbers of the states of this process; an address may be another's when one is gone."""


class RowState(Generic[M]):
    """The state of one kind of method for the rows of a batch, as tensors, so that each row has its own parameters.

    A method overrides what it needs of :meth:`begin`, the ``change_`` methods and :meth:`end_step`; whoever decodes
    calls what is overridden, in the layers of :attr:`layers`, with the rows that have the method. Nothing here may wait
    for the device, and nothing that Python decides may depend on what a tensor holds: a step may be replayed as a CUDA
    graph. A tensor that is replaced by another and not written in place has its size in :meth:`captured_with`.

    Attributes
    ----------
    layers
        Those in which any row has ever done anything; of one card, where layers are on several.
    acts
        [layers, rows] bool: where each row's method acts.
    """

    reads_entropy: ClassVar[bool] = False
    """Whether the entropy of attention weights is wanted in :attr:`layers`."""

    changes_output: bool = False
    """Whether any row's :meth:`change_output` has ever done something."""

    def __init__(self, kind: type[M], n_rows: int, decoder: Decoder, device: Any) -> None:
        import torch

        self._number = next(_STATES)
        self.decoder = decoder
        self.layers = range(0)
        self._most_to_come = MOST_TO_COME[kind.acts_from]
        self.acts = torch.zeros(decoder.n_layers, n_rows, dtype=torch.bool, device=device)
        self._choices = {name: one.choices for name, one in kind.declared().items() if one.kind == "choice"}
        self._names = [name for name, one in kind.declared().items() if one.kind != "list"]
        # float64 holds whole numbers exactly, and sums of parameters come out as Python's own.
        self._numbers = torch.zeros(len(self._names), n_rows, dtype=torch.float64, device=device)

    def set_rows(self, rows: Sequence[int], methods: Sequence[M | None]) -> Tensor:
        """Start ``rows`` afresh, each with a method of its own; None leaves its row alone.

        Returns
        -------
        Tensor
            ``rows`` as indices on the device.
        """
        import torch

        spans = [self.layers_of(method) if method else range(0) for method in methods]
        given = to_device(
            np.array(
                [
                    list(rows),
                    [span.start for span in spans],
                    [span.stop for span in spans],
                    *([self._as_number(name, method) for method in methods] for name in self._names),
                ],
                dtype=np.float64,
            ),
            self.acts.device,
        )
        index, start, stop = given[:3].long()
        self._numbers[:, index] = given[3:]
        layers = torch.arange(len(self.acts), device=index.device)[:, None]
        self.acts[:, index] = (layers >= start) & (layers < stop)
        here = self.decoder.layers_here
        known = [range(max(span.start, here.start), min(span.stop, here.stop)) for span in [self.layers, *spans]]
        known = [span for span in known if span]
        if known:
            self.layers = range(min(span.start for span in known), max(span.stop for span in known))
        return index

    def layers_of(self, method: M) -> range:
        """The layers in which a method acts."""
        end = getattr(method, "end_layer", self.decoder.n_layers)
        return range(getattr(method, "start_layer", 0), end)

    def _as_number(self, name: str, method: M | None) -> float:
        if method is None:
            return 0.0
        value = getattr(method, name)
        return self._choices[name].index(value) if name in self._choices else float(value)

    def parameter(self, name: str) -> Tensor:
        """[rows] float64: a parameter of each row; words by their place among the choices, 0 without a method."""
        return self._numbers[self._names.index(name)]

    def at(self, seen: Seen, name: str, scores: Tensor) -> Tensor:
        """[n, 1, 1] in the type of ``scores``: a parameter of the rows that look, 0 where they do not act."""

        def in_all_layers() -> Tensor:
            return self.value(seen, name, scores) * self._acts(seen)

        return self.once(seen, f"{name} where it acts", in_all_layers)[seen.layer]

    def value(self, seen: Seen, name: str, like: Tensor) -> Tensor:
        """[n, 1, 1] in the type of ``like``: a parameter of the rows that look, wherever they act."""
        return self.once(seen, name, lambda: seen.of_rows(self.parameter(name)).to(like.dtype)[:, None, None])

    def acting(self, seen: Seen) -> Tensor:
        """[n, 1, 1] bool: whether the method acts in this layer on each row that looks, and on its newest token."""
        return self._acts(seen)[seen.layer]

    def _acts(self, seen: Seen) -> Tensor:
        """[layers, n, 1, 1] bool."""

        def in_all_layers() -> Tensor:
            acts = seen.of_rows(self.acts.T).T & (seen.to_come <= self._most_to_come)
            return acts[..., None, None]

        return self.once(seen, "acts", in_all_layers)

    def once(self, seen: Seen, what: str, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives, made once a step for all layers."""
        return seen.once((type(self), what), make)

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        """Take what is known of the prompts on which ``rows`` begin; ``index`` is the same on the device.

        Around ``generate()`` visual tokens and places are known to methods that act on the prompt, change attention or
        ask for facts; to others, which text alone will do, they are not.
        """

    def change_scores(self, seen: Seen, scores: Tensor) -> Tensor:
        """Attention scores of the newest token, [n, heads, positions], scaled, as the method has them.

        It may change the tensor that it is given. Positions that a row does not see have scores so low that no change
        makes them matter.
        """
        return scores

    def change_weights(self, seen: Seen, weights: Tensor) -> Tensor:
        """Attention weights, [n, heads, positions], as the method has them, renormalised or not."""
        return weights

    def change_sum(self, seen: Seen, weights: Tensor) -> Tensor:
        """Weights with which values are summed, where they are not those that others are to see."""
        return weights

    def change_output(self, layer: int, output: Tensor, entropy: Tensor, generated: Tensor) -> Tensor:
        """Attention output of one layer of all rows, [rows, heads, head_dim], before the projection."""
        return output

    def after_layer(self, layer: int, hidden: Tensor) -> None:
        """Look at a layer's output, [rows, width], the newest token's, of as many of the first rows as decode."""

    def end_step(self, step: StepEnd) -> None:
        """The step is over for all rows."""

    def follow(self, other: Self, seen: Sequence[tuple[SeenPositions, SeenPositions]]) -> None:
        """Know what ``other`` does, the state of the same rows on another card, whose layers came just before.

        For what one layer finds and another goes by. Called where a step goes on to the next card, and at its end,
        before :meth:`end_step`, on all cards but the last, with what that one has.

        Parameters
        ----------
        seen
            The rows on which both act in this step, as seen there and here.
        """

    def smoothing(self, entropy: Tensor) -> Tensor:
        """How strongly each layer of :attr:`layers` and row is smoothed, for those who look on; NaN where nothing is.

        To be asked before :meth:`end_step`, with the entropies that it will see; it changes nothing.
        """
        import torch

        return torch.full_like(entropy, torch.nan)

    def captured_with(self) -> Hashable:
        """What a CUDA graph of the methods above has fixed; when it changes, capture again.

        No two states have it in common, for a graph goes on with the tensors of the one that it was captured with.
        """
        return self._number, self.layers, self.changes_output

    def reorder(self, index: Tensor) -> None:
        """Row ``i`` becomes what row ``index[i]`` was, as beam search does with the cache."""
        self.acts = moved(self.acts, index, axis=1)
        self._numbers = moved(self._numbers, index, axis=1)

    @property
    def looks_at_layers(self) -> bool:
        """Whether :meth:`after_layer` is to be called."""
        return type(self).after_layer is not RowState.after_layer

    @property
    def changes_attention(self) -> bool:
        """Whether scores or weights are changed, so that rows with the method need them one by one."""
        kind = type(self)
        return any(
            getattr(kind, name) is not getattr(RowState, name)
            for name in ("change_scores", "change_weights", "change_sum")
        )


def moved(tensor: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    """``tensor`` with its rows in the order of ``index``: in place if they stay as many, as a CUDA graph needs it."""
    taken = tensor.index_select(axis, index.to(tensor.device))
    return tensor.copy_(taken) if taken.shape == tensor.shape else taken


def wide(positions: int) -> int:
    """Positions that are kept for a prompt of so many: multiples of 32, as prompts are paged."""
    return positions + -positions % 32


def widened(tensor: Tensor, positions: int) -> Tensor:
    """``tensor`` with a last axis of at least :func:`wide`, 0 in what is new."""
    return fitted(tensor, max(wide(positions), tensor.shape[-1]))


def fitted(tensor: Tensor, width: int) -> Tensor:
    """``tensor`` with a last axis of ``width``, 0 beyond: other rows' prompts may be longer than those of its own."""
    import torch

    missing = width - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing > 0 else tensor[..., :width]
