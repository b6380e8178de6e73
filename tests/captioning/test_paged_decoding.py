"""Who decodes where on a GPU, with no model: any lengths, any memory."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paged_without_model import Script, a_plan, request, scripted
from small_vlms import small_vlm

from kvtune.captioning import continuous, paged_plan
from kvtune.captioning import decoding as decoding_module
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.captioning.prefill import batches
from kvtune.errors import KvtuneError


def run(decoding, scripts, look_ahead=50, withdrawals=None, arrivals=None):
    """As a captioner runs it; captions by tag, and steps.

    ``arrivals`` holds how many come before each step, of those that there is room for.
    """
    scripts, captions, steps, withdrawn = iter(scripts), {}, 0, set()
    exhausted = False
    arrivals = itertools.chain(arrivals or [], itertools.repeat(look_ahead))
    while True:
        done = []
        if not exhausted:
            room = min(next(arrivals), max(0, look_ahead - decoding.scheduler.waiting))
            if room > 0 or not decoding.scheduler.is_busy:
                pulled = list(itertools.islice(scripts, max(1, room)))
                exhausted = not pulled
                for script in pulled:
                    decoding.scheduler.add(script.image, request(script))
        if tag := (withdrawals or {}).get(steps):
            withdrawn.add(tag)
            decoding.scheduler.withdraw(lambda one: one.tag in withdrawn)
            decoding.forget_withdrawn()
        if exhausted and not decoding.scheduler.is_busy:
            return captions, steps
        if exhausted and not decoding.scheduler.waiting:
            decoding.shrink(done)
        steps += decoding.advance(done)
        assert steps < 100_000
        for caption in done:
            assert caption.tag not in captions
            captions[caption.tag] = caption


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_caption_is_whole_whatever_the_memory(data):
    limit = data.draw(st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 150]), "max_new_tokens")
    prompts = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=6), "prompts")
    lengths = st.one_of(st.integers(0, limit), st.just(limit))
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(prompts) - 1), lengths), min_size=1, max_size=40), "captions"
    )
    scripts = [Script(number, image, length) for number, (image, length) in enumerate(pairs)]
    # A page for nobody's sake, or more; what the plan thinks of prompts may be wrong.
    least = max(map(pages_for, prompts)) + pages_for(limit + 1)
    pages = least + data.draw(st.integers(0, 30), "pages more")
    thought = data.draw(st.sampled_from(prompts), "prompt thought of")
    rows = data.draw(st.integers(1, 12), "rows")
    arrivals = data.draw(st.lists(st.integers(0, 4), max_size=20), "arrivals")
    withdrawals = data.draw(st.dictionaries(st.integers(0, 60), st.integers(0, len(pairs) - 1), max_size=3), "gone")
    ahead = data.draw(st.sampled_from([0.03, 0.3, 1.0]), "share of the pages for prompts ahead of need")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "AHEAD", ahead)
        decoding = scripted(patch, a_plan(rows, pages, thought, limit), prompts.__getitem__, limit)
        captions, _ = run(decoding, scripts, withdrawals=withdrawals, arrivals=arrivals)
    for script in scripts:
        if script.number in captions:
            assert captions[script.number].token_ids == script.token_ids
            assert captions[script.number].image_id == script.image
        else:
            assert script.number in withdrawals.values()
    held = sum(len(decoding.grid.pages.of(("image", image))) for image in range(decoding.scheduler.most_images))
    assert held + decoding.grid.pages.free == pages


def test_no_caption_waits_for_a_prompt_that_comes_ahead_where_memory_is_plenty(monkeypatch):
    """Every caption has an image of its own, and goes on to the limit."""
    monkeypatch.setattr(paged_plan, "free_memory", lambda device: 2**40)
    rows, prompt, limit, captions = 64, 20 * PAGE, 64, 256
    plan = paged_plan.plan_pages(small_vlm(), prompt, limit, captions, captions, rows)
    decoding = scripted(monkeypatch, plan, lambda image: prompt, limit)
    _, steps = run(decoding, (Script(number, number, limit) for number in range(captions)), captions)
    assert steps == captions // rows * limit


def test_prompts_longer_than_was_thought_come_one_after_the_other():
    """Two prompts that the plan took for short fill the memory to the last page, and leave none for a caption."""
    scripts = [Script(number, number, 5) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        decoding = scripted(patch, a_plan(2, 10, 1, 31), lambda image: 160, 31)
        captions, _ = run(decoding, scripts)
    assert captions.keys() == {0, 1}


def test_a_prompt_longer_than_was_thought_takes_the_place_of_one_that_is_done():
    scripts = [Script(number, number, 5) for number in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        decoding = scripted(patch, a_plan(2, 10, 90, 31), [90, 280].__getitem__, 31)
        captions, _ = run(decoding, scripts, arrivals=[1] + 9 * [0])
    assert captions.keys() == {0, 1}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_prompts_are_run_together_again_once_long_ones_are_gone(data):
    planned, tokens = data.draw(st.sampled_from([(60, 480), (60, 5120), (200, 480), (700, 1000)]), "prompts of a plan")
    before = data.draw(st.lists(st.integers(1, 900), min_size=1, max_size=20), "prompts before")
    short = data.draw(st.integers(1, planned), "prompts after")
    prompts = before + 64 * [short]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "AHEAD", 1.0)
        plan = dataclasses.replace(a_plan(8, 400, planned, 31), prefill_tokens=tokens)
        decoding = scripted(patch, plan, prompts.__getitem__, 31)
        ran = []

        def noted(vlm, prompts, facts, together):
            ran.extend(batches(prompts, together))
            return iter(prompts)

        patch.setattr(decoding_module, "prefill", noted)
        captions, _ = run(decoding, [Script(n, n, n % 20) for n in range(len(prompts))])
    assert len(captions) == len(prompts)
    memory = prompts_together(planned, tokens) * planned  # what the plan has put aside
    for lengths in ([prompt.length for prompt in batch] for batch in ran):
        most = memory if max(lengths) <= planned else tokens
        assert len(lengths) == 1 or len(lengths) * max(lengths) <= most
    assert decoding.scheduler.together == min(8, memory // short)
    assert decoding.scheduler.prompt_pages == pages_for(short)
    assert max(map(len, ran[-6:])) == decoding.scheduler.together


@pytest.mark.parametrize("pages", [1, 8])
def test_no_room_for_one_caption_is_said(pages):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KvtuneError, match="single caption"):
        run(scripted(patch, a_plan(1, pages, 90, 200), lambda image: 90, 200), [Script(0, 0, 190)])


def test_prompts_that_came_ahead_are_not_run_again_for_the_sake_of_a_few_tokens(monkeypatch):
    """Where memory is full, captions wait for those that end, and the youngest give way."""
    monkeypatch.setattr(continuous, "AHEAD", 0.2)
    decoding = scripted(monkeypatch, a_plan(64, 290, 626, 170), lambda image: 626, 170)
    ran = []
    monkeypatch.setattr(decoding_module, "prefill", lambda vlm, prompts, *rest: iter(ran.extend(prompts) or prompts))
    captions, _ = run(decoding, [Script(n, n // 8, 60 + n * 61 % 101) for n in range(400)], look_ahead=100)
    assert len(captions) == 400
    assert len(ran) <= 55  # about 50 images
    assert sum(decoding.grid.steps) / len(decoding.grid.steps) > 35  # rows at work
