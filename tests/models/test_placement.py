"""Whole layers on cards: all of them, in order, and the fullest card as empty as can be."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtune.models.placement import place_layers


def share(spans, sizes, room):
    return max(sum(sizes[span.start : span.stop]) / own for span, own in zip(spans, room, strict=True))


@st.composite
def placements(draw):
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=9))
    return sizes, draw(st.lists(st.integers(1, 100), min_size=1, max_size=min(4, len(sizes))))


@given(placements())
def test_no_other_way_is_better(given):
    sizes, room = given
    spans = place_layers(sizes, room)
    assert [layer for span in spans for layer in span] == list(range(len(sizes)))
    assert len(spans) == len(room) and all(spans)
    cuts = combinations(range(1, len(sizes)), len(room) - 1)
    others = ([range(*ends) for ends in pairwise((0, *cut, len(sizes)))] for cut in cuts)
    assert share(spans, sizes, room) == pytest.approx(min(share(other, sizes, room) for other in others))


def test_equal_layers_on_equal_cards_are_divided_equally():
    assert place_layers([10] * 80, [1000] * 4) == [range(20), range(20, 40), range(40, 60), range(60, 80)]
    assert place_layers([10] * 80, [400, 1000]) == [range(23), range(23, 80)]


def test_a_card_without_room_has_one_layer_all_the_same():
    assert place_layers([5, 5, 5], [-3, 100]) == [range(1), range(1, 3)]
