"""Which methods act on each row of a batch, and what they remember."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import PromptFacts
from kvtune.methods.row_state import ActingMethod, RowState
from kvtune.methods.sending import to_device

Stack = tuple[type[ActingMethod], ...]
"""The kinds of methods that act on a row, in order."""


class RowMethods:
    """The methods of ``n_rows`` rows; none has one yet.

    Attributes
    ----------
    states
        Kind of method to its state for all rows; rows without it do nothing there.
    """

    def __init__(self, n_rows: int, decoder: Decoder, device: torch.device) -> None:
        self.states: dict[type[ActingMethod], RowState[Any]] = {}
        self.decoder = decoder
        self._n_rows, self._device = n_rows, device
        self._stacks: list[Stack] = [()]
        self._stack_of = np.zeros(n_rows, dtype=np.int64)

    def start(
        self, rows: Sequence[int], methods: Sequence[ActingMethod | None], prompts: Sequence[PromptFacts]
    ) -> None:
        """Give each of ``rows`` its method, about a prompt of which so much is known."""
        self.set(rows, methods)
        self.begin(rows, prompts)

    def set(self, rows: Sequence[int], methods: Sequence[ActingMethod | None]) -> None:
        """Give each of ``rows`` its method."""
        parts = [method.parts if method else () for method in methods]
        for kind in {type(part) for of_row in parts for part in of_row} - set(self.states):
            self.states[kind] = kind.row_state(self._n_rows, self.decoder, self._device)
        for kind, state in self.states.items():
            state.set_rows(rows, [_of_kind(kind, of_row) for of_row in parts])
        for row, of_row in zip(rows, parts, strict=True):
            stack = tuple(type(part) for part in of_row)
            if stack not in self._stacks:
                self._stacks.append(stack)
            self._stack_of[row] = self._stacks.index(stack)

    def begin(
        self,
        rows: Sequence[int],
        prompts: Sequence[PromptFacts],
        kinds: Callable[[type[ActingMethod]], bool] = lambda kind: True,
    ) -> None:
        """Tell the methods of ``rows``, of some kinds, what is known of the prompts on which they begin."""
        for kind, state in self.states.items():
            if not kinds(kind) or type(state).begin is RowState.begin:
                continue
            having = [place for place, row in enumerate(rows) if kind in self._stacks[self._stack_of[row]]]
            if having:
                own = [rows[place] for place in having]
                known = [prompts[place].to(self._device) for place in having]
                state.begin(own, to_device(np.array(own), self._device), known)

    def clear(self) -> None:
        """No row has a method."""
        self._stack_of[:] = 0
        # What changes outputs takes steps of all rows, whoever is in them.
        self.states = {kind: state for kind, state in self.states.items() if not state.changes_output}

    def of(self, rows: np.ndarray) -> list[RowState[Any]]:
        """The states of the methods that ``rows`` have."""
        kinds = {kind for stack in np.unique(self._stack_of[rows]) for kind in self._stacks[stack]}
        return [state for kind, state in self.states.items() if kind in kinds]

    def on_attention(self, rows: np.ndarray) -> list[tuple[list[RowState[Any]], np.ndarray]]:
        """Stacks that change scores or weights, with those of ``rows`` that have them."""
        found = []
        for number in np.unique(self._stack_of[rows]):
            states = [self.states[kind] for kind in self._stacks[number]]
            if any(state.changes_attention for state in states):
                found.append((states, rows[self._stack_of[rows] == number]))
        return found

    def move(self, order: np.ndarray, index: Tensor) -> None:
        """Row ``i`` becomes what row ``order[i]`` was, of as many rows; ``index`` is the same on the device."""
        self._n_rows = len(order)
        self._stack_of = self._stack_of[order]
        for state in self.states.values():
            state.reorder(index)


@contextmanager
def looking_at_layers(decoder: Decoder, states: Sequence[RowState[Any]]) -> Iterator[None]:
    """Show the outputs of layers, for the newest token, to methods that look at them, within the block."""
    looking = [state for state in states if state.looks_at_layers]
    with ExitStack() as undo:
        for number in decoder.layers_here if looking else ():
            hook = decoder.module.layers[number].register_forward_hook(
                lambda _, given, output, number=number: show_layer(looking, number, output)
            )
            undo.callback(hook.remove)
        yield


def show_layer(states: Sequence[RowState[Any]], number: int, output: Any) -> None:
    """Show what a layer gave for the newest token to those of the methods that look at layers."""
    hidden = output[0] if isinstance(output, tuple) else output
    for state in states:
        if state.looks_at_layers:
            state.after_layer(number, hidden[:, -1])


def _of_kind(kind: type[ActingMethod], parts: Sequence[ActingMethod]) -> ActingMethod | None:
    return next((part for part in parts if type(part) is kind), None)
