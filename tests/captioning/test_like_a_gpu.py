"""The way the engine works on a GPU, shown right without one."""

import copy
import dataclasses
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_requests import METHODS, check, requests_of, vlm
from graph_like import NoWaits, RecordedStep, is_view, like_a_gpu, tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import small_llava
from small_vlms import References, random_images, reference_tokens, small_vlm
from torch.utils._python_dispatch import TorchDispatchMode

from kvtune import KVSmooth
from kvtune.captioning import (
    Captioner,
    CaptionRequest,
    decoding,
    kernels,
    memory,
    paged_attention,
    paged_grid,
    paged_plan,
    paged_smoothing,
    planning,
)
from kvtune.captioning.grid_attention import ATTENTION
from kvtune.captioning.paged_grid import PagedGrid
from kvtune.captioning.paged_plan import plan_pages
from kvtune.captioning.prefill import decoder_of, prefill
from kvtune.captioning.prefix import Prefix
from kvtune.captioning.prompts import Prompts
from kvtune.errors import KvtuneError
from kvtune.hf import attention_implementation
from kvtune.methods import Stack
from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import PromptFacts
from kvtune.methods.kvsmooth import KVSmoothRows
from kvtune.models import VisionLanguageModel


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["grouped", "multi-head"]),
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(METHODS) - 1)), min_size=1, max_size=24),
    lanes=st.integers(1, 10),
    withdrawals=st.dictionaries(st.integers(0, 10), st.integers(0, 23), max_size=3),
)
def test_replayed_steps_and_late_tokens_change_no_caption(kind, pairs, lanes, withdrawals):
    with pytest.MonkeyPatch.context() as patch:
        like_a_gpu(patch)
        requests = requests_of(pairs)
        captioner = Captioner(vlm(kind), max_new_tokens=20, lanes=lanes)
        captions, withdrawn = [], set()
        for count, caption in enumerate(captioner.run(iter(requests))):
            captions.append(caption)
            if count in withdrawals:
                captioner.withdraw(withdrawals[count])
                withdrawn.add(withdrawals[count])
    seen = check(captions, requests, kind, 20)
    assert set(range(len(requests))) - withdrawn <= seen.keys()


def long_and_short(count, long, short=9):
    """Requests under many methods, each with a limit of its own, a few of them long."""
    return [
        CaptionRequest(n, IMAGES[n % 3], METHODS[n % 6], n, long + 10 * n if n % 5 == 0 else short + n % 3)
        for n in range(count)
    ]


IMAGES = random_images(3)
ENDLESS = small_vlm(small_llava(0, kv_heads=2), eos=())


def test_long_captions_among_short_ones_take_pages_and_no_other_graph(monkeypatch):
    made = like_a_gpu(monkeypatch)
    requests = long_and_short(11, 60)
    captions = {c.tag: c for c in Captioner(ENDLESS, max_new_tokens=300, lanes=4).run(requests)}
    for n, request in enumerate(requests):
        expected = reference_tokens(ENDLESS, request.image, request.method, request.max_new_tokens)[0]
        assert captions[n].token_ids == expected
    (steps,) = made
    assert steps.replays > 150
    assert len({shape[:2] for shape in steps.seen}) <= 6  # widths and tiles, whatever the lengths


@settings(max_examples=6, deadline=None)
@given(pages=st.integers(6, 24), lanes=st.integers(1, 12), seed=st.integers(0, 99))
def test_few_pages_change_no_caption(pages, lanes, seed):
    """Captions outgrow what was expected of them: the youngest give way and begin again."""
    random = np.random.default_rng(seed)
    requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[n % 5], n, int(random.choice([3, 20, 70]))) for n in range(10)]
    with pytest.MonkeyPatch.context() as patch:
        like_a_gpu(patch)
        plan = planning.plan_pages
        patch.setattr(planning, "plan_pages", lambda *given: dataclasses.replace(plan(*given), pages=pages))
        captions = {c.tag: c for c in Captioner(ENDLESS, max_new_tokens=70, lanes=lanes).run(requests)}
    assert captions.keys() == set(range(10))
    for n, request in enumerate(requests):
        assert captions[n].token_ids == expected_of(n % 3, n % 5, request.max_new_tokens)


REFERENCES = References(ENDLESS, IMAGES, 70)


def expected_of(image, method, limit):
    return REFERENCES(image, METHODS[method], limit)[0]


def test_texts_under_methods_that_change_attention_take_pages_too(monkeypatch):
    like_a_gpu(monkeypatch)
    methods = [1, 6, 9, 12]
    requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[methods[n % 4]], n, 70 - 9 * n) for n in range(6)]
    captions = {c.tag: c for c in Captioner(ENDLESS, max_new_tokens=70, lanes=4).run(requests)}
    for n, request in enumerate(requests):
        assert captions[n].token_ids == expected_of(n % 3, methods[n % 4], request.max_new_tokens)


def test_too_few_pages_for_one_caption_are_said(monkeypatch):
    like_a_gpu(monkeypatch)
    plan = planning.plan_pages
    monkeypatch.setattr(planning, "plan_pages", lambda *given: dataclasses.replace(plan(*given), pages=2))
    with pytest.raises(KvtuneError, match="single caption"):
        list(Captioner(ENDLESS, max_new_tokens=100, lanes=4).run(long_and_short(4, 90, 80)))


def test_another_run_goes_on_with_the_grid_and_its_graphs(monkeypatch):
    made = like_a_gpu(monkeypatch)
    captioner = Captioner(ENDLESS, max_new_tokens=40, lanes=4)
    for start in range(3):
        requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[(n + start) % 5], (start, n), 5 + n) for n in range(12)]
        replays = made[0].replays if made else 0
        captions = {caption.tag: caption for caption in captioner.run(requests)}
        for n in range(12):
            assert captions[start, n].token_ids == expected_of(n % 3, (n + start) % 5, 5 + n)
        assert len(made) == 1
        assert made[0].replays > replays
    assert captioner.steps - (made[0].replays - replays) <= 3  # hardly a step was not a replay
    larger = [CaptionRequest(n, IMAGES[n % 3], None, (3, n), 40) for n in range(12)]
    captioner.lanes = 12
    assert len(list(captioner.run(larger))) == 12
    assert len(made) == 2  # more rows than that one has


def test_rows_without_a_method_pay_for_none(monkeypatch):
    """Neither beside nor after rows that had one."""
    like_a_gpu(monkeypatch)
    captioner = Captioner(ENDLESS, max_new_tokens=20, lanes=4)
    requests = [
        CaptionRequest(n, IMAGES[n % 3], METHODS[1] if n == 0 else None, n, 5 if n == 0 else 20) for n in range(4)
    ]
    calls = []
    original = KVSmoothRows.end_step
    monkeypatch.setattr(KVSmoothRows, "end_step", lambda state, step: calls.append(1) or original(state, step))
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)  # a replay calls nothing
    assert len(list(captioner.run(requests))) == 4
    assert 4 <= len(calls) <= 6
    assert len(list(captioner.run(requests[1:]))) == 3
    assert len(calls) <= 6


def test_every_image_is_prefilled_once_for_all_its_captions(monkeypatch):
    like_a_gpu(monkeypatch)
    calls = []
    original = decoding.prefill
    monkeypatch.setattr(
        decoding,
        "prefill",
        lambda vlm, prompts, *rest: calls.append(len(prompts)) or original(vlm, prompts, *rest),
    )
    requests = [
        CaptionRequest(n, image, method, (n, m), 5 + m % 7)
        for n, image in enumerate(IMAGES)
        for m, method in enumerate(METHODS)
    ]
    assert len(list(Captioner(ENDLESS, max_new_tokens=20, lanes=5).run(requests))) == 3 * len(METHODS)
    assert sum(calls) == 3


def test_a_prompt_that_is_on_the_grid_is_not_held_beside_the_next(monkeypatch):
    like_a_gpu(monkeypatch)
    for module in (memory, paged_plan):
        monkeypatch.setattr(module, "PREFILL_TOKENS", 1)  # one after the other
    prefixes, held = [], []

    def run(*given):
        held.append(sum(prefix() is not None for prefix in prefixes))
        for prefix in prefill(*given):
            prefixes.append(weakref.ref(prefix))
            yield prefix

    monkeypatch.setattr(decoding, "prefill", run)
    requests = [CaptionRequest(n, image, None, n) for n, image in enumerate(IMAGES)]
    assert len(list(Captioner(ENDLESS, max_new_tokens=5, lanes=3).run(requests))) == 3
    assert held == [0, 0, 0]


def test_a_step_is_narrower_when_few_captions_are_left(monkeypatch):
    like_a_gpu(monkeypatch)
    widths = []
    original = PagedGrid.step

    def step(grid, running):
        widths.append((len(running), grid.width(running)))
        return original(grid, running)

    monkeypatch.setattr(PagedGrid, "step", step)
    requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[n % 5], n, 30 if n == 11 else 5) for n in range(12)]
    captions = {c.tag: c for c in Captioner(ENDLESS, max_new_tokens=30, lanes=12).run(requests)}
    assert widths[0] == (12, 12)
    assert widths[-1] == (1, 1)
    assert captions[11].token_ids == expected_of(2, 1, 30)


def test_a_step_reads_nothing_of_rows_that_stand_idle(monkeypatch):
    like_a_gpu(monkeypatch)
    layouts = []
    original = PagedGrid._decode

    def decode(grid, shape, on_cards):
        layout = grid.cards[0].on_card(shape.width, shape.tiles, shape.acting)[0]
        layouts.append((layout.newest.tolist(), layout.table.tolist(), layout.tiles.flatten().tolist()))
        return original(grid, shape, on_cards)

    monkeypatch.setattr(PagedGrid, "_decode", decode)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[n % 5], n, 4 + 3 * n) for n in range(6)]
    list(Captioner(ENDLESS, max_new_tokens=30, lanes=6).run(requests))
    idle = 0
    for newest, table, members in layouts:
        live = [row for row, position in enumerate(newest) if position >= 0]
        assert sorted(member for member in members if member >= 0) == live
        for row, pages in enumerate(table):
            assert any(pages) == (row in live)
            idle += row not in live
    assert idle > 0


def test_nothing_is_taken_from_lanes_on_which_no_method_acts(monkeypatch):
    """Of which kernels leave nonsense."""

    def attend_tiles(query, keys, values, layout, scaling, layer, acting):
        output, entropy = paged_attention.attend_tiles(query, keys, values, layout, scaling, layer, acting)
        nobody = layout.tiles.flatten() < 0
        if acting[0].index is not None:
            nobody = torch.ones_like(nobody).index_fill(0, torch.cat([one.index for one in acting]), False)
        return output.masked_fill(nobody[:, None, None, None], torch.nan), entropy.masked_fill(nobody, torch.nan)

    like_a_gpu(monkeypatch)
    plain = (paged_attention.attend, paged_smoothing.smooth)
    monkeypatch.setattr(kernels, "PLAIN", kernels.Kernels(*plain, attend_tiles))
    requests = requests_of([(n % 3, n) for n in range(len(METHODS))])
    captions = list(Captioner(vlm(), max_new_tokens=8, lanes=len(METHODS)).run(requests))
    assert len(check(captions, requests, "grouped", 8)) == len(METHODS)


def test_a_replay_that_meets_what_it_was_not_recorded_for_would_be_wrong():
    """The stand-in itself: it repeats what was recorded and no more."""
    state = torch.zeros(2)
    steps = 1
    with RecordedStep() as recorded:
        state += steps
    steps = 5
    recorded.replay()
    assert state.tolist() == [2, 2]


READS = {
    "item": lambda state: state.sum().item(),
    "float": lambda state: float(state.sum()),
    "bool": lambda state: bool((state > 0).any()),
    "branch": lambda state: 1 if state[0] > 0 else 2,
    "tolist": lambda state: state.tolist(),
    "numpy": lambda state: state.numpy(),
    "mask": lambda state: state[state > 0],
    "put by mask": lambda state: state.__setitem__(state > 0, torch.ones(1)),
    "nonzero": lambda state: state.nonzero(),
    "equal": lambda state: torch.equal(state, state + 1),
}


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_step_that_waits_for_the_device_is_refused(read, inference):
    with torch.inference_mode(inference):
        state = torch.ones(2)
        with pytest.raises(AssertionError, match="waits for the device"), RecordedStep():
            read(state)


def test_a_read_in_a_step_is_seen(monkeypatch):
    """A read planted in the middle of a decode step."""
    like_a_gpu(monkeypatch)
    original = KVSmoothRows.end_step
    monkeypatch.setattr(
        KVSmoothRows,
        "end_step",
        lambda state, step: step.entropies(state.layers).max().item() and original(state, step),
    )
    with pytest.raises(AssertionError, match="waits for the device"):
        list(Captioner(ENDLESS, max_new_tokens=9, lanes=2).run(long_and_short(2, 9)))


def a_grid(rows=4):
    plan = dataclasses.replace(plan_pages(ENDLESS, 20, 60, rows, 2, rows), pages=30)
    grid = PagedGrid(ENDLESS, plan)
    for image, prefix in enumerate(prefill(ENDLESS, Prompts(ENDLESS, None).of(["a", "b"], random_images(2)))):
        grid.reserve(image, prefix.length)
        grid.load(image, prefix)
    return grid


def test_a_prompt_on_the_grid_keeps_no_other_in_memory():
    """Images come off the grid one by one, though they were run as a batch."""
    for prompt in a_grid()._prompts.values():
        assert prompt.facts.outputs.untyped_storage().nbytes() == prompt.facts.outputs.nbytes


@pytest.mark.parametrize("length", [32, 33, 64, 79])
def test_a_prompt_is_written_into_its_pages_and_nowhere_else(length):
    """Pages that others have left, and no second copy of what takes hundreds of megabytes."""
    card, pages = a_grid().cards[0], -(-length // 32)
    own = list(range(20, 20 + pages))
    shape = (card.keys.shape[0], card.keys.shape[2], length, card.keys.shape[4])
    new = [torch.randn(shape, dtype=card.keys.dtype) for _ in range(2)]
    for cache in (card.keys, card.values):
        cache[:] = 7
    card.classes[:] = True
    if length < 64:  # where a longer one was
        longer = (new[0][:, :, :1].expand(-1, -1, 96, -1),) * 2
        card.load(3, [20, 21, 22], *longer, torch.ones(96, dtype=torch.bool))
        for cache in (card.keys, card.values):
            cache[:] = 7
    with LargestMade() as made:
        card.load(3, own, *new, torch.ones(length, dtype=torch.bool))
    assert made.nbytes < new[0].nbytes
    positions = card.classes.shape[2]
    assert positions == 32 * card.prompt_table.shape[1] >= 32 * pages
    assert card.classes[1, 3].tolist() == [True] * length + [False] * (positions - length)
    assert not card.classes[[0, 2], 3].any() and card.classes[:, :3, :32].all()
    for cache, one in zip((card.keys, card.values), new, strict=True):
        there = cache[:, own].transpose(1, 2).flatten(2, 3)
        assert torch.equal(there[:, :, :length], one) and not there[:, :, length:].any()
        assert (cache[:, [*range(20), *range(20 + pages, len(cache[0]))]] == 7).all()


class LargestMade(TorchDispatchMode):
    """How large the largest tensor is that an operation made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not is_view(func, tensors((args, kwargs)), [result]):
            written = func._schema.is_mutable
            self.nbytes = max(self.nbytes, 0 if written else result.nbytes)
        return result


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_kernels_are_built_once_for_all_widths(width):
    """Triton builds a kernel anew where a tensor does not begin at a multiple of 16 bytes."""
    grid = a_grid()
    grid.newest[:width], grid._image_of[:width], grid._table[:width, 0] = 1, np.arange(width) % 2, np.arange(width) + 1
    layout = grid.cards[0].on_card(width, grid._send_layout(np.arange(width), width)[0].tiles)[0]
    assert layout.newest.tolist() == [1] * width
    assert layout.table[:, 0].tolist() == [row + 1 for row in range(width)]
    assert sorted(row for row in layout.tiles.flatten().tolist() if row >= 0) == list(range(width))
    for part in vars(layout).values():
        assert part.data_ptr() % 16 == 0


def test_rows_of_a_tile_read_as_much_of_the_same_image():
    """Prompts of hundreds of tokens, as models have them."""
    with torch.inference_mode(), attention_implementation(ENDLESS.hf_model, ATTENTION):
        grid, lengths = a_grid(), {2: 262, 3: 6}
        (some,) = prefill(ENDLESS, Prompts(ENDLESS).of(["a"], random_images(1)))
        for image, length in lengths.items():
            facts = dataclasses.replace(some.end.facts, visual=torch.zeros(length, dtype=torch.bool))
            shape = (*some.keys[0].shape[:2], length, some.keys[0].shape[3])
            numbers = (torch.zeros(shape, dtype=some.keys[0].dtype),)
            grid.reserve(image, length)
            grid.load(image, Prefix(numbers, numbers, dataclasses.replace(some.end, length=length, facts=facts)))
        grid.start(range(4), [2, 3, 2, 3], [None] * 4)
        grid.step(np.arange(4))
    layout = grid.cards[0].on_card(4, 2)[0]
    found = {}
    for rows, image, length in zip(layout.tiles.tolist(), layout.tile_images, layout.tile_lengths, strict=True):
        found.update({row: (int(image), int(length)) for row in rows if row >= 0})
    assert found == {0: (2, 261), 1: (3, 5), 2: (2, 261), 3: (3, 5)}


@pytest.mark.parametrize("methods", [METHODS[:4], METHODS[2:6], [METHODS[1], *METHODS[6:9]]])
def test_a_step_runs_where_nothing_can_be_read(methods):
    """On meta tensors, which have shapes and no numbers."""
    with torch.inference_mode(), attention_implementation(ENDLESS.hf_model, ATTENTION):
        grid = a_grid()
        grid.start(range(4), [0, 1, 0, 1], methods)
        shape, on_cards = grid._send_layout(np.arange(4), 4)
        grid.vlm = small_vlm(copy.deepcopy(ENDLESS.hf_model).to("meta"), eos=())
        grid._embed, grid._head = (
            grid.vlm.hf_model.get_input_embeddings(),
            grid.vlm.hf_model.get_output_embeddings(),
        )
        to_meta(grid, set())
        with attention_implementation(grid.vlm.hf_model, ATTENTION):
            grid._decode(shape, on_cards)
            assert grid.tokens.is_meta
            state = grid.cards[0].methods.states[KVSmooth]
            end_step = state.end_step
            state.end_step = lambda step: step.entropies(state.layers).max().item() and end_step(step)
            with pytest.raises(RuntimeError, match="meta"):
                grid._decode(shape, on_cards)


def test_captions_begin_and_go_on_without_waiting_for_the_device():
    """Prompts come onto the grid, captions start under all kinds of methods, step, move and end."""
    with torch.inference_mode():
        prefixes = list(prefill(ENDLESS, Prompts(ENDLESS, None).of(["a", "b"], random_images(2))))
    meta = small_vlm(copy.deepcopy(ENDLESS.hf_model).to("meta"), eos=())
    grid = PagedGrid(meta, dataclasses.replace(plan_pages(ENDLESS, 20, 60, 6, 2, 6), pages=40), cuda_graphs=False)
    with torch.inference_mode(), attention_implementation(meta.hf_model, ATTENTION):
        prefixes = [
            Prefix(
                (prefix.keys[0].to("meta"),),
                (prefix.values[0].to("meta"),),
                dataclasses.replace(
                    prefix.end, facts=facts_on_meta(prefix.end.facts), first_token=prefix.end.first_token.to("meta")
                ),
            )
            for prefix in prefixes
        ]
        with NoWaits():
            for image, prefix in enumerate(prefixes):
                grid.reserve(image, prefix.length)
                grid.load(image, prefix)
            grid.start([0, 2], [0, 1], [None, METHODS[1]])
            grid.step(np.array([0, 2]))
            grid.start([1, 3, 4, 5], [0, 1, 0, 1], METHODS[2:6])
            grid.step(np.arange(6))
            grid.release(0)
            grid.move(np.array([5, 4, 3, 2, 1, 0]))
            assert grid.step(np.arange(5)).is_meta


@pytest.mark.parametrize("of_one_length", [True, False])
def test_kept_prompts_are_run_without_waiting_for_the_device(of_one_length):
    """Of several lengths too, where padding is hidden by a mask."""
    images = random_images(2)
    images[0].putpixel((0, 0), (1, 0, 0))  # which says how long the text is
    images[1].putpixel((0, 0), (1 if of_one_length else 3, 0, 0))
    with torch.inference_mode():
        kept = Prompts(ENDLESS, None).of(["a", "b"], images)
    assert (kept[0].length == kept[1].length) == of_one_length
    meta = small_vlm(copy.deepcopy(ENDLESS.hf_model).to("meta"), eos=())
    with torch.inference_mode(), NoWaits():
        prefixes = list(prefill(meta, [prompt.to(torch.device("meta")) for prompt in kept]))
    assert [prefix.length for prefix in prefixes] == [prompt.length for prompt in kept]
    assert all(prefix.end.first_token.is_meta for prefix in prefixes)


def test_a_caption_that_ends_with_its_first_token_is_seen_a_step_late(monkeypatch):
    """Its first token is the prompt's, which nobody waits for."""
    like_a_gpu(monkeypatch)
    read, original = [], PagedGrid.step

    def step(grid, running):
        read.append(len(captions))
        return original(grid, running)

    monkeypatch.setattr(PagedGrid, "step", step)
    captions = []
    requests = [CaptionRequest(n, IMAGES[n % 3], METHODS[n % 5], n, 1) for n in range(9)]
    captioner = Captioner(ENDLESS, max_new_tokens=20, lanes=3)
    for caption in captioner.run(requests):
        captions.append(caption)
    assert read == [0, 3, 6] and captioner.steps == 3
    for caption in captions:
        assert caption.token_ids == expected_of(caption.tag % 3, caption.tag % 5, 1)


WAITS = {
    "number": lambda state: state.__setitem__((0,), 1),
    "list": lambda state: state[[0, 1]],
    "array": lambda state: state.__setitem__(np.arange(2), 0),
    "index": lambda state: state[torch.arange(2)],
    "new": lambda state: torch.tensor([1], device="meta"),
    "to": lambda state: torch.arange(2).to("meta"),
    "copy": lambda state: state.copy_(torch.ones(2)),
    "max": lambda state: int(state.max()),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_waits_for_the_device_is_refused(wait):
    state = torch.ones(2, device="meta")
    with pytest.raises(AssertionError, match="waits for the device"), NoWaits():
        wait(state)


def facts_on_meta(facts):
    return PromptFacts(facts.visual.to("meta"), None, facts.outputs.to("meta"))


def to_meta(thing, seen):
    """Every tensor of a grid and what it holds, in place."""
    if id(thing) in seen or isinstance(thing, VisionLanguageModel | Decoder) or not hasattr(thing, "__dict__"):
        return
    seen.add(id(thing))
    for name, value in vars(thing).items():
        if isinstance(value, torch.Tensor):
            object.__setattr__(thing, name, value.to("meta"))
        elif isinstance(value, dict):
            for key, one in value.items():
                if isinstance(one, torch.Tensor):
                    value[key] = one.to("meta")
                else:
                    to_meta(one, seen)
        else:
            for one in value if isinstance(value, list) else [value]:
                to_meta(one, seen)


def a_grid_of_graphs(rows=4):
    """And the shapes of its steps, by which graphs are told apart, as they come; no step is run."""
    grid, shapes = a_grid(rows), []
    grid._graphs = SimpleNamespace(run=lambda shape, step: shapes.append(shape))
    return grid, shapes


def test_the_shape_of_a_step_changes_with_whatever_a_graph_fixes():
    with torch.inference_mode(), attention_implementation(ENDLESS.hf_model, ATTENTION):
        grid, shapes = a_grid_of_graphs()

        def shape(running):
            grid.step(np.array(running))
            assert len(set(shapes)) == len(shapes)

        grid.start([0], [0], [None])
        shape([0])
        grid.start([1], [1], [METHODS[3]])  # another row and tile, and a method where there was none
        shape([0, 1])
        grid.start([2], [0], [METHODS[1]])  # another range of layers, a longer queue
        shape([0, 1, 2])
        grid.start([3], [1], [METHODS[4]])  # a queue longer still, of as many rows
        shape([0, 1, 2])
        grid.release(3)
        grid.start([3], [1], [METHODS[5]])  # attention outputs
        shape([0, 1, 2])
        before = len(shapes)
        grid.newest[:3] = 40  # more of the texts is read: the same graph
        for _ in range(2):
            grid.step(np.arange(3))
        assert len(set(shapes[before - 1 :])) == 1
        del shapes[before:]
        card = grid.cards[0]
        card.classes = card.classes.clone()  # elsewhere
        shape([0, 1, 2])
        card.prompt_table = torch.nn.functional.pad(card.prompt_table, (0, 1))
        shape([0, 1, 2])
        card.prompt_table = card.prompt_table[:, :-1]  # and of another width in the same place
        shape([0, 1, 2])


VAF_ROWS, PAI_ROWS, BOTH = METHODS[7], METHODS[6], Stack.of(METHODS[7], METHODS[6])


@pytest.mark.parametrize(
    ("first", "then"),
    [
        # Of the same states, in as many tiles and as many kinds.
        ([(VAF_ROWS, 0)] * 2 + [(BOTH, 0)] * 2, [(PAI_ROWS, 0)] * 2 + [(BOTH, 0)] * 2),
        ([(VAF_ROWS, 0)] * 17 + [(PAI_ROWS, 0)] * 3, [(VAF_ROWS, 0)] * 3 + [(PAI_ROWS, 0)] * 17),
        ([(None, 0), (PAI_ROWS, 0), (PAI_ROWS, 1)], [(None, 0), (None, 1), (PAI_ROWS, 0)]),
    ],
)
def test_no_graph_serves_steps_whose_methods_stand_otherwise(first, then):
    with torch.inference_mode(), attention_implementation(ENDLESS.hf_model, ATTENTION):
        grid, shapes = a_grid_of_graphs(rows=20)
        grid.start([0, 1, 2], [0] * 3, [VAF_ROWS, PAI_ROWS, BOTH])  # which makes the states
        for row in range(3):
            grid.release(row)
        for rows in (first, then):
            grid.start(range(len(rows)), [image for _, image in rows], [method for method, _ in rows])
            grid.step(np.arange(len(rows)))
            for row in range(len(rows)):
                grid.release(row)
    assert shapes[0] != shapes[1]
    assert shapes[0][:2] == shapes[1][:2]


@pytest.mark.parametrize("method", METHODS[1:14], ids=lambda method: method.name)
def test_no_graph_is_replayed_for_another_state(method):
    """A grid goes from run to run with its graphs; what it remembers of methods that change outputs does not."""
    decoder = decoder_of(ENDLESS)
    keys = set()
    for _ in range(3):  # each may lie where the one before did
        state = type(method).row_state(3, decoder, "cpu")
        state.set_rows([0], [method])
        keys.add(state.captured_with())
        assert state.captured_with() in keys
        del state
    assert len(keys) == 3
