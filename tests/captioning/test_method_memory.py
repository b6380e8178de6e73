"""What methods say that they remember of a row, beside what their states hold, and what the plan makes of it."""

import pytest
import torch
from limited_memory import LimitedMemory
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import (
    Captioner,
    CaptionRequest,
    kernels,
    paged_attention,
    paged_grid,
    paged_plan,
    paged_smoothing,
    planning,
)
from kvtune.captioning.grid import Grid
from kvtune.captioning.paged_plan import plan_pages
from kvtune.captioning.pages import PAGE
from kvtune.captioning.prefill import decoder_of, prefill
from kvtune.captioning.prompts import Prompts
from kvtune.methods import ADHH, CLVS, DSCR, PAI, SPARC, VAF, VAR, MiddleLayers, Stack
from kvtune.methods.acting import Acting

METHODS = [
    KVSmooth(0.5, 64, 0.2, 0, 3),
    KVSmooth(0.5, 8, 0.2, 0, 3, target="attention_output"),
    PAI(0.5, 0, 3),
    VAF(1.3, 0.8, 0, 3),
    MiddleLayers(0.7, 0, 3),
    SPARC(1.4, 0.5, 0.1, 1),
    ADHH(((0, 1),), 0.3),
    VAR(1.5),
    CLVS(),
    DSCR(start_layer=0, end_layer=3, target="kv"),
]


@pytest.fixture(scope="module")
def vlm():
    return small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))


def held(thing):
    """Bytes of the tensors in an object and in those it has."""
    if isinstance(thing, torch.Tensor):
        return thing.nbytes
    if isinstance(thing, dict):
        return sum(map(held, thing.values()))
    if type(thing).__name__ == "EntropyQueue":
        return held(vars(thing))
    return 0


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_state_holds_more_than_its_method_says(vlm, method):
    rows = 8
    (prompt,) = Prompts(vlm).of(["one"], random_images(1))
    with torch.inference_mode():
        (prefix,) = prefill(vlm, [prompt], method.facts)
        grid = Grid(vlm, 1, rows)
        grid.load(0, prefix)
        grid.start(range(rows), [0] * rows, [method] * rows)
    state = grid.methods.states[type(method)]
    small = held(state.acts) + held(state._numbers) + 100 * rows  # layers, parameters, counts, heads
    assert held({**vars(state), "decoder": None}) <= rows * method.row_bytes(decoder_of(vlm), prompt.length) + small


def test_pages_give_way_to_what_methods_remember(vlm, monkeypatch):
    monkeypatch.setattr(paged_plan, "free_memory", lambda device: 20_000_000)
    plain, more = plan_pages(vlm, 20, 60, 500, 50), plan_pages(vlm, 20, 60, 500, 50, row_state=20_000)
    assert plain.row_state == 0 and more.row_state == 20_000
    assert more.pages < plain.pages
    monkeypatch.setattr(paged_plan, "free_memory", lambda device: 20_000_000 - plain.cache)
    assert plan_pages(vlm, 20, 60, 500, 50, kept=plain) == plain
    assert plan_pages(vlm, 20, 60, 500, 50, kept=plain, row_state=20_000) == more


def test_what_is_known_of_the_first_requests_is_planned_for(vlm):
    images = random_images(2)
    methods = [SPARC(layer=1), SPARC(layer=2), KVSmooth(0.5, 9, 0.2, 0, 3), KVSmooth(0.5, 30, 0.2, 0, 3), None]
    captioner = Captioner(vlm, max_new_tokens=4, lanes=10)
    requests = [CaptionRequest(n, images[n % 2], method, n) for n, method in enumerate(methods)]
    assert len(list(captioner.run(requests))) == 5
    longest = captioner.plan.prompt_tokens
    own = [methods[n].row_bytes(decoder_of(vlm), longest) for n in (0, 3)]
    assert captioner.plan.states == captioner.plan.rows * sum(own) > 0


@pytest.mark.parametrize("method", [*METHODS[2:], Stack.of(KVSmooth(0.5, 8, 0.2, 0, 3), PAI(0.5, 0, 3))], ids=str)
def test_what_changing_attention_takes_for_a_moment_is_planned(vlm, monkeypatch, method):
    """On a GPU, where a step is planned without scores."""
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    most = []

    def counted(self, layer, query, scores, scaling):
        with LimitedMemory() as memory:
            changed = attend(self, layer, query, scores, scaling)
        most.append((memory.peak + 2 * scores.nbytes) / len(scores))
        return changed

    attend = Acting.attend
    monkeypatch.setattr(Acting, "attend", counted)
    captioner = Captioner(vlm, max_new_tokens=40, lanes=16)
    requests = [CaptionRequest(n, image, method, n) for n, image in enumerate(random_images(1) * 16)]
    assert len(list(captioner.run(requests))) == 16
    own = method.row_bytes(decoder_of(vlm), captioner.plan.prompt_tokens)
    plan = captioner.plan
    assert own < max(most) <= plan.row_state + plan.acting // plan.rows
    plain = [CaptionRequest(n, request.image, KVSmooth(0.5, 8, 0.2, 0, 3), n) for n, request in enumerate(requests)]
    fewer = Captioner(vlm, max_new_tokens=40, lanes=16)
    list(fewer.run(plain))
    assert fewer.plan.acting == 0 and fewer.plan.row_state < (plan.row_state + plan.acting // plan.rows) / 2


def test_a_capture_needs_no_memory_for_what_methods_remember(vlm, monkeypatch):
    """Which is there by then; where less is free than it needs, all that is cached is given back before it."""
    needed = []
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda device, takes: needed.append(takes))
    plans = []
    for method in (PAI(0.5, 0, 3), CLVS(0.5, 0.6, 0.9)):
        captioner = Captioner(vlm, max_new_tokens=5, lanes=4)
        list(captioner.run([CaptionRequest(n, image, method, n) for n, image in enumerate(random_images(2) * 2)]))
        plans.append(captioner.plan)
    assert plans[0].row_state < plans[1].row_state
    assert needed[0] == needed[1] > plans[0].step


def test_a_grid_is_kept_for_fewer_captions_of_the_same_images(vlm, monkeypatch):
    """As where some of a round were written before; but not where more memory is taken for a moment."""
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    made = []
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *given: made.append(given))
    captioner, images = Captioner(vlm, max_new_tokens=5, lanes=32), random_images(8)
    for several, grids in ((32, 1), (30, 1), (31, 1), (8, 1)):
        requests = [CaptionRequest(n, images[n % 8], PAI(0.5, 0, 3), n) for n in range(several)]
        assert len(list(captioner.run(requests))) == several
        assert len(made) == grids
    requests = [CaptionRequest(n, image, PAI(0.5, 0, 3), n) for n, image in enumerate(random_images(32))]
    assert len(list(captioner.run(requests))) == 32
    assert len(made) == 2


def test_memory_is_looked_at_when_what_is_cached_is_given_back(vlm, monkeypatch):
    """And a grid that will not do with it; while one is kept that will, the next run finds its memory cached."""
    seen = []
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append("given back"))
    monkeypatch.setattr(paged_plan, "free_memory", lambda device: seen.append("looked at") or 2**30)
    captioner, images = Captioner(vlm, max_new_tokens=5, lanes=32), random_images(8)
    for several, expected in (
        (8, ["given back", "looked at"]),
        (6, ["looked at"]),
        (32, ["looked at", "given back", "looked at"]),
    ):
        seen.clear()
        assert len(list(captioner.run([CaptionRequest(n, images[n % 8], None, n) for n in range(several)]))) == several
        assert seen == expected


@pytest.mark.parametrize("images", [1, 4, 16])
def test_what_scores_take_is_planned_however_many_captions_an_image_has(vlm, monkeypatch, images):
    """Where each caption has an image of its own, one of a tile's 16 lanes is taken."""
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    taken = []

    def attend_tiles(query, keys, values, layout, scaling, layer, acting):
        positions = (layout.prompt_table.shape[1] + layout.table.shape[1]) * PAGE
        row = 4 * query.shape[1] * query.shape[2] * positions
        own = layout.tiles.numel() if acting[0].index is None else len(acting[0].index)
        taken.append((layout.tiles.numel() + 4 * own) * row)
        return paged_attention.attend_tiles(query, keys, values, layout, scaling, layer, acting)

    plain = (paged_attention.attend, paged_smoothing.smooth)
    monkeypatch.setattr(kernels, "PLAIN", kernels.Kernels(*plain, attend_tiles))
    captioner = Captioner(vlm, max_new_tokens=40, lanes=16)
    several = random_images(images)
    requests = [CaptionRequest(n, several[n % images], PAI(0.5, 0, 3), n) for n in range(16)]
    assert len(list(captioner.run(requests))) == 16
    assert max(taken) <= captioner.plan.acting
