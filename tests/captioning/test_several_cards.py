"""A model spread over several cards writes what it writes on one; the cards are pretended, and nothing mixes them."""

import copy
import functools
import gc
import weakref
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from engine_requests import IMAGES, METHODS, check, expected, requests_of, vlm
from failing_device import FailingDevice
from graph_like import like_a_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended_cards import ApartError, PretendedCards, tensors_in
from small_vlms import reference_tokens, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import (
    Captioner,
    card_pages,
    kernels,
    paged_attention,
    paged_grid,
    paged_plan,
    paged_smoothing,
    paged_step,
)
from kvtune.captioning.card_pages import CardPages
from kvtune.captioning.memory import bytes_per_position, prefill_bytes
from kvtune.captioning.model_check import check_model
from kvtune.captioning.paged_plan import plan_pages
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.device_errors import is_lost
from kvtune.errors import LostDeviceError, RequestError
from kvtune.methods import CLVS, PAI, SPARC
from kvtune.methods.clvs import CLVSRows
from kvtune.methods.row_state import RowState
from kvtune.methods.sparc import SPARCRows
from kvtune.models.spread import Card, spread

CARDS = [torch.device("cpu", number) for number in range(3)]
SPANS = {
    "two": [range(2), range(2, 3)],
    "most on the second": [range(1), range(1, 3)],
    "three": [range(1), range(1, 2), range(2, 3)],
}
ALL = [(method % 3, method) for method in range(len(METHODS))]
GO_BETWEEN = [(0, n) for n, method in enumerate(METHODS) if method and {*map(type, method.parts)} & {CLVS, SPARC}]
"""What one layer finds and another goes by."""


def captions_of(spans, requests, lanes=20, max_new_tokens=12):
    """What a copy of a small model, spread over pretended cards, writes as on GPUs; and what it wrote with."""
    with pytest.MonkeyPatch.context() as patch, PretendedCards() as cards:
        graphs, used, load = like_a_gpu(patch), set(), CardPages.load
        patch.setattr(CardPages, "load", lambda card, *given: used.add(card) or load(card, *given))
        model = copy.deepcopy(vlm().hf_model)
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
    assert len(check(captions, requests, "grouped", 12)) == len(requests)
    cards = CARDS[: len(SPANS[spans])]
    assert {*pairwise(cards), (cards[-1], cards[0])} <= set(copies)


def test_rows_that_come_and_go_write_the_same():
    requests = requests_of([(n % 4, (5 * n) % len(METHODS)) for n in range(11)])
    captions, _ = captions_of(SPANS["two"], requests, lanes=3)
    assert len(check(captions, requests, "grouped", 12)) == len(requests)


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
    tokens = [expected("grouped", 0, request.method, 12)[0] for request in requests]
    assert [caption.token_ids for caption in sorted(captions, key=lambda one: one.tag)] != tokens


def test_around_generate_smoothing_works_and_others_are_refused():
    model = copy.deepcopy(vlm().hf_model)
    smoothing = [2, 4]  # from layer 0 on, and from one on the second card on
    written = {method: reference_tokens(vlm(), IMAGES[0], METHODS[method], 20) for method in smoothing}
    with PretendedCards():
        spread(model, CARDS[:2], SPANS["most on the second"])
        several = small_vlm(model)
        for method in smoothing:
            assert reference_tokens(several, IMAGES[0], METHODS[method], 20) == written[method]
        for method in (KVSmooth(0.6, 5, 0.4, 0, 3, target="attention_output"), PAI(0.5, 0, 3), SPARC(1.4, 0.5, 0.1, 1)):
            with pytest.raises(RequestError, match="the model's are on several devices"):
                reference_tokens(several, IMAGES[0], method, 4)


def test_a_model_is_proven_on_several_cards(monkeypatch):
    """By what generate() writes there, plain and under what works there."""
    like_a_gpu(monkeypatch)
    model = copy.deepcopy(vlm().hf_model)
    with PretendedCards():
        spread(model, CARDS[:2], SPANS["two"])
        checked = check_model(small_vlm(model), IMAGES[:1], max_new_tokens=8)
    assert checked.proven and checked.device == "cpu:0,cpu:1"
    assert {proof.method for proof in checked.proofs} == {None, "kvsmooth"}
    assert "several devices" in checked.refused["clvs"]


class FailingCard(FailingDevice):
    """One of several cards that is lost; what the others are asked for, they do."""

    def __init__(self, cards, card, at=float("inf")):
        super().__init__(at)
        self.cards, self.card = cards, card

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if self.card in map(self.cards.card_of, tensors_in([*args, *(kwargs or {}).values()])):
            return super().__torch_dispatch__(function, types, args, kwargs)
        return function(*args, **(kwargs or {}))


@functools.cache
def operations(spans):
    """Of each card, while a small model that is spread over them writes."""
    counts = []
    for card in CARDS[: len(SPANS[spans])]:
        with spread_over(SPANS[spans]) as (captioner, cards), FailingCard(cards, card) as counted:
            list(captioner.run(LOST_AMID))
        counts.append(counted.count)
    return counts


@contextmanager
def spread_over(spans):
    """A captioner whose model is spread over pretended cards, and they."""
    with pytest.MonkeyPatch.context() as patch, PretendedCards() as cards:
        like_a_gpu(patch)
        model = copy.deepcopy(vlm().hf_model)
        spread(model, CARDS[: len(spans)], spans)
        yield Captioner(small_vlm(model), max_new_tokens=4, lanes=3), cards


LOST_AMID = requests_of([(n % 2, n % len(METHODS)) for n in range(5)])


@settings(max_examples=8, deadline=None)
@given(spans=st.sampled_from(["two", "three"]), which=st.integers(0, 2), share=st.floats(0, 0.999))
def test_a_card_that_is_lost_is_told_and_no_caption_is(spans, which, share):
    which %= len(SPANS[spans])
    captions = []
    with spread_over(SPANS[spans]) as (captioner, cards):
        with (
            pytest.raises(LostDeviceError, match="does nothing more for this process: CUDA error: an illegal memory"),
            FailingCard(cards, CARDS[which], int(share * operations(spans)[which])),
        ):
            captions.extend(captioner.run(LOST_AMID))
        again = list(captioner.run(LOST_AMID))
    check(captions, LOST_AMID, "grouped", 4)
    assert check(again, LOST_AMID, "grouped", 4).keys() == set(range(5))


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_card_that_is_lost_while_a_model_is_proven(monkeypatch, share):
    """It is no method's fault."""
    like_a_gpu(monkeypatch)
    model = copy.deepcopy(vlm().hf_model)
    with PretendedCards() as cards:
        spread(model, CARDS[:2], SPANS["two"])
        with FailingCard(cards, CARDS[1]) as whole:
            check_model(small_vlm(model), IMAGES[:1], max_new_tokens=4)
        with pytest.raises(Exception) as raised, FailingCard(cards, CARDS[1], int(share * whole.count)):
            check_model(small_vlm(model), IMAGES[:1], max_new_tokens=4)
    assert is_lost(raised.value)


def test_kernels_are_launched_on_the_card_of_their_layer(monkeypatch):
    """Triton launches on the current GPU, wherever the tensors are."""
    current, seen = [CARDS[0]], []

    @contextmanager
    def on_device(device):
        current.append(device)
        yield
        current.pop()

    def looked_at(name):
        original = getattr(paged_attention if name == "attend" else paged_smoothing, name)

        def run(first, *given):
            seen.append((name, first.device))
            assert first.device == current[-1]
            return original(first, *given)

        return run

    def kernels_for(device, *shapes):
        seen.append(("trial", device))
        assert device == current[-1]
        return kernels.PLAIN

    monkeypatch.setattr(paged_step, "on_device", on_device)
    monkeypatch.setattr(paged_grid, "on_device", on_device)
    monkeypatch.setattr(card_pages, "kernels_for", kernels_for)
    monkeypatch.setattr(kernels, "PLAIN", kernels.Kernels(looked_at("attend"), looked_at("smooth")))
    captions_of(SPANS["three"], requests_of([(0, 2)]), max_new_tokens=4)
    assert set(seen) == {(name, card) for name in ("trial", "attend", "smooth") for card in CARDS}


def test_nothing_of_a_pass_is_held_after_it():
    """Of thousands of steps it would fill the cards."""
    seen = []
    with PretendedCards():
        model = copy.deepcopy(vlm().hf_model)
        spread(model, CARDS[:2], SPANS["two"])
        decoder = model.model.language_model
        for layer in decoder.layers[1:]:  # on the first card, and on the second
            layer.register_forward_pre_hook(lambda module, given: seen.append(weakref.ref(given[0])))
        with torch.inference_mode():
            decoder(input_ids=torch.zeros(1, 3, dtype=torch.long, device=CARDS[0]), use_cache=False)
        gc.collect()
    assert len(seen) == 2 and all(one() is None for one in seen)


def test_no_graphs_is_said(caplog):
    caplog.set_level("INFO")
    captions_of(SPANS["two"], requests_of([(0, 0)]), max_new_tokens=2)
    assert [record.message for record in caplog.records if "CUDA graphs" in record.message] == [
        "decode steps are launched one by one, without CUDA graphs: the model is on several GPUs"
    ]


class PlannedFor:
    """A small model whose layers are said to be on these cards."""

    def __init__(self, cards):
        self.cards = cards

    def __getattr__(self, name):
        return getattr(vlm(), name)


@given(
    spans=st.sampled_from([[range(3)], *SPANS.values()]),
    free=st.lists(st.integers(2**21, 2**26), min_size=3, max_size=3),
    state=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_the_card_with_the_least_room_says_how_many_pages(spans, free, state):
    with pytest.MonkeyPatch.context() as patch:
        free_on = dict(zip(CARDS, free, strict=True))
        patch.setattr(paged_plan, "free_memory", free_on.__getitem__)
        patch.setattr(paged_plan, "weight_bytes", lambda vlm, device: 1000)
        cards = [Card(device, span) for device, span in zip(CARDS, spans, strict=False)]
        plan = plan_pages(PlannedFor(cards), 40, 100, 600, 40, row_state=state)
    assert plan.cards == len(spans)
    page = {card.device: PAGE * bytes_per_position(vlm(), len(card.layers)) for card in cards}
    rooms = {}
    for card in cards:
        together = min(8, plan.prefill_tokens // 40)
        prompts = int(paged_plan.FRAGMENTS * prefill_bytes(vlm(), together, 40, len(card.layers)))
        beside = plan.rows * state + 2 * plan.step + prompts
        rooms[card.device] = (int(0.6 * free_on[card.device]) - beside) // page[card.device]
    fewest = pages_for(40) + plan.text_pages
    fillable = plan.rows * plan.text_pages + min(40, plan.images) * pages_for(40)
    assert plan.pages == max(fewest, min(fillable, *rooms.values()))
    assert plan.cache == (plan.pages + 1) * page[min(rooms, key=rooms.__getitem__)]
