"""Which layers of a decoder are on which card, where a model has several: whole layers, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def place_layers(sizes: Sequence[int], room: Sequence[int]) -> list[range]:
    """Layers for cards, at least one each, so that the card with the most layers for its room has as few as can be.

    That leaves the most memory a layer for the KV cache, which is as large in every layer.

    Parameters
    ----------
    sizes
        Bytes of each layer.
    room
        Bytes of each card for layers, what else it must hold left out; as many cards as layers at most.

    Returns
    -------
    list of range
        Of each card, in order.
    """
    ends = [0, *accumulate(sizes)]
    layers, cards = len(sizes), len(room)
    # For the first cards: the fullest card's share of its room, and where the last of them begins, by where it ends.
    best: list[list[tuple[float, int]]] = [[(0.0, 0)] + [(float("inf"), 0)] * layers]
    for card, own in enumerate(room):
        best.append([(float("inf"), 0)] * (layers + 1))
        for end in range(card + 1, layers - (cards - card - 1) + 1):
            best[-1][end] = min(
                (max(best[card][begin][0], (ends[end] - ends[begin]) / max(own, 1)), begin)
                for begin in range(card, end)
            )
    spans: list[range] = []
    end = layers
    for card in range(cards, 0, -1):
        begin = best[card][end][1]
        spans.insert(0, range(begin, end))
        end = begin
    return spans
