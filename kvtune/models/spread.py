"""A model on several cards: whole decoder layers on each, and hidden states that go from card to card with them.

All but the layers is on the first card: vision tower, embeddings, last norm, projection to the vocabulary. Inputs come
there, and tokens. Only arguments are moved, by hooks; what modules compute is untouched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kvtune.hf import text_decoder


@dataclasses.dataclass(frozen=True)
class Card:
    """A device, and the decoder layers that are on it, which follow each other."""

    device: torch.device
    layers: range


def cards_of(decoder: Any) -> list[Card]:
    """The devices that a decoder's layers are on, in the order of the layers."""
    cards: list[Card] = []
    for number, layer in enumerate(decoder.layers):
        device = next(layer.parameters()).device
        if cards and cards[-1].device == device:
            cards[-1] = Card(device, range(cards[-1].layers.start, number + 1))
        else:
            cards.append(Card(device, range(number, number + 1)))
    return cards


def spread(hf_model: Any, devices: Sequence[torch.device], spans: Sequence[range]) -> None:
    """Put the layers of ``spans`` on ``devices``, all else on the first, and let hidden states follow them.

    Parameters
    ----------
    hf_model
        Anywhere, or there already.
    spans
        The layers of each device, as :func:`kvtune.models.placement.place_layers` gives them.
    """
    decoder = text_decoder(hf_model)
    away = {number: device for device, span in zip(devices, spans, strict=True) for number in span}
    for number, device in away.items():
        _move(decoder.layers[number], device)
    _move(hf_model, devices[0], but={id(module) for layer in decoder.layers for module in layer.modules()})
    moves = _Moves()
    decoder.register_forward_pre_hook(moves.begin)
    decoder.register_forward_hook(moves.begin)
    for number, device in away.items():
        if device != devices[0]:
            decoder.layers[number].register_forward_pre_hook(partial(moves.before, device), with_kwargs=True)
    for child in decoder.children():
        if child is not decoder.layers:
            child.register_forward_pre_hook(partial(moves.before, devices[0]), with_kwargs=True)


def _move(whole: nn.Module, device: torch.device, but: Collection[int] = ()) -> None:
    """Put what a module and its submodules hold on a device, those of some ids left out."""
    for module in whole.modules():
        if id(module) in but:
            continue
        for parameter in module._parameters.values():
            if parameter is not None and parameter.device != device:
                parameter.data = parameter.data.to(device)  # in place, for it may be tied to another
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)


class _Moves:
    """Arguments of layers on another card, each copied there once a forward pass."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
        """By the original, which is held so that no other gets its number."""

    def begin(self, *_: Any) -> None:
        self._made.clear()

    def before(
        self, device: torch.device, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a module on ``device``."""
        moved = {name: self._moved(value, device) for name, value in keywords.items()}
        return tuple(self._moved(value, device) for value in arguments), moved

    def _moved(self, value: Any, device: torch.device) -> Any:
        if isinstance(value, tuple):  # cosines and sines
            return tuple(self._moved(one, device) for one in value)
        if not isinstance(value, Tensor) or value.device == device:
            return value
        key = id(value), device
        if key not in self._made:
            self._made[key] = value, value.to(device, non_blocking=True)
        return self._made[key][1]
