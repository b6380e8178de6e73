"""A model spread over several cards writes what it writes on one; the cards are pretended, and nothing mixes them."""

import copy
from itertools import pairwise

import pytest
import torch
from engine_requests import METHODS, check, expected, requests_of, vlm
from graph_like import like_a_gpu
from pretended_cards import ApartError, PretendedCards
from small_vlms import small_vlm

from kvtune.captioning import Captioner
from kvtune.captioning.card_pages import CardPages
from kvtune.methods import CLVS, PAI, SPARC
from kvtune.methods.clvs import CLVSRows
from kvtune.methods.row_state import RowState
from kvtune.methods.sparc import SPARCRows
from kvtune.models.spread import spread

CARDS = [torch.device("cpu", number) for number in range(3)]
SPANS = {
    "two": [range(2), range(2, 3)],
    "most on the second": [range(1), range(1, 3)],
    "three": [range(1), range(1, 2), range(2, 3)],
}
ALL = [(method % 3, method) for method in range(len(METHODS))]
GO_BETWEEN = [(0, n) for n, method in enumerate(METHODS) if method and {*map(type, method.parts)} & {CLVS, SPARC}]
"""What one layer finds and another goes by."""


def captions_of(spans, requests, kind="grouped", lanes=20, max_new_tokens=20):
    """What a copy of a small model, spread over pretended cards, writes as on GPUs; and what it wrote with."""
    with pytest.MonkeyPatch.context() as patch, PretendedCards() as cards:
        graphs, used, load = like_a_gpu(patch), set(), CardPages.load
        patch.setattr(CardPages, "load", lambda card, *given: used.add(card) or load(card, *given))
        model = copy.deepcopy(vlm(kind).hf_model)
        spread(model, CARDS[: len(spans)], spans)
        captioner = Captioner(small_vlm(model), max_new_tokens=max_new_tokens, lanes=lanes)
        captions = list(captioner.run(iter(requests)))
        assert [card.layers for card in captioner.vlm.cards] == spans
        for card, there in zip(sorted(used, key=lambda card: card.layers.start), CARDS, strict=False):
            of_methods = [one for state in card.methods.states.values() for one in vars(state).values()]
            for tensor in (card.keys, card.values, card.prompt_table, card.classes, card.layout, *of_methods):
                assert not isinstance(tensor, torch.Tensor) or tensor.device == there
    assert not graphs
    return captions, cards.copies


@pytest.mark.parametrize(("spans", "pairs"), [("two", ALL), ("most on the second", GO_BETWEEN), ("three", GO_BETWEEN)])
def test_every_method_writes_what_generate_writes_on_one_device(spans, pairs):
    requests = requests_of(pairs)
    captions, copies = captions_of(SPANS[spans], requests)
    assert len(check(captions, requests, "grouped", 20)) == len(requests)
    cards = CARDS[: len(SPANS[spans])]
    assert {*pairwise(cards), (cards[-1], cards[0])} <= set(copies)


def test_rows_that_come_and_go_write_the_same():
    requests = requests_of([(n % 4, (5 * n) % len(METHODS)) for n in range(11)])
    captions, _ = captions_of(SPANS["two"], requests, lanes=3)
    assert len(check(captions, requests, "grouped", 20)) == len(requests)


@pytest.mark.parametrize("what", ["keys", "prompt_table", "classes", "layout"])
def test_a_tensor_left_on_the_first_card_is_seen(monkeypatch, what):
    original = CardPages.load

    def load(card, *given):
        original(card, *given)
        setattr(card, what, getattr(card, what).to(CARDS[0]))

    monkeypatch.setattr(CardPages, "load", load)
    with pytest.raises(ApartError, match="cpu:0, cpu:1"):
        captions_of(SPANS["two"], requests_of([(0, METHODS.index(PAI(0.5, 0, 3)))]), max_new_tokens=4)


@pytest.mark.parametrize("kind", [CLVSRows, SPARCRows])
def test_a_state_that_does_not_follow_is_seen(monkeypatch, kind):
    monkeypatch.setattr(kind, "follow", RowState.follow)
    requests = requests_of([pair for pair in GO_BETWEEN if kind.__name__.startswith(METHODS[pair[1]].name.upper())])
    captions, _ = captions_of(SPANS["three"], requests)
    tokens = [expected("grouped", 0, request.method, 20)[0] for request in requests]
    assert [caption.token_ids for caption in sorted(captions, key=lambda one: one.tag)] != tokens
