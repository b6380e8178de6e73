"""What the engine launches on a GPU, bound and built for one by Triton itself and not run."""

from types import SimpleNamespace

import torch
from engine_requests import METHODS
from graph_like import like_a_gpu
from kernel_launches import launches
from small_models import small_llava
from small_vlms import random_images, small_vlm
from triton_without_gpu import needs_triton

from kvtune.bench.engine import kernels as bench_kernels
from kvtune.bench.engine.kernels import Shape, Situation
from kvtune.captioning import Captioner, CaptionRequest, captioner, card_pages, paged_grid, plain_layers
from kvtune.captioning.fused import FusedLayers
from kvtune.captioning.kernels import PLAIN, Kernels, OneRow, nobody
from kvtune.captioning.paged_attention import Layout
from kvtune.captioning.pages import PAGE

pytestmark = needs_triton
CPU = torch.device("cpu")


def launched_beside(modules, plain, *names):
    """Functions that launch kernels and give what plain torch computes."""

    def both(module, name):
        return lambda *given: (getattr(module, name)(*given), getattr(plain, name)(*given))[1]

    return {name: both(module, name) for module, name in zip(modules, names, strict=True)}


def kernels():
    from kvtune.captioning import triton_attention, triton_smoothing, triton_tiles

    modules = [triton_attention, triton_smoothing, triton_tiles]
    return Kernels(**launched_beside(modules, PLAIN, "attend", "smooth", "attend_tiles"))


def triton_attention():
    from kvtune.captioning import triton_attention

    return triton_attention


def builds(made):
    return {(one.kernel, one.build) for one in made}


def test_a_trial_builds_what_steps_launch():
    """A kernel built anew takes seconds, in the middle of the first step."""
    situation = Situation.of(Shape(40, 2, 1, 16), torch.bfloat16, CPU)
    with launches() as tried:
        row = OneRow.of(CPU, torch.bfloat16, 2, 1, 16)
        row.try_attention(kernels())
        row.try_tiles(kernels().attend_tiles)
    with launches() as made:
        situation.attend(kernels())
        situation.smooth(kernels())
        smooth_from(kernels(), situation, 1)  # layers of any number
        for first in (0, 1):  # parts of tensors begin anywhere
            attend_tiles(kernels(), situation, first)
    assert len(made) == 12
    assert builds(made) == builds(tried)


def smooth_from(built, situation, first):
    layout, caches = situation.layout, [torch.stack([cache] * 2) for cache in (situation.keys, situation.values)]
    built.smooth(*caches, layout.table, layout.newest, situation.factors, situation.factors, first)


def attend_tiles(built, situation, first):
    layout = situation.layout.ending(first)
    acting = nobody(situation.query, layout)
    return built.attend_tiles(situation.query, situation.keys, situation.values, layout, 0.25, 0, [acting])


def test_the_bench_builds_attention_in_other_ways(monkeypatch):
    monkeypatch.setattr(bench_kernels, "WAYS", bench_kernels.WAYS[::9])
    situation = Situation.of(Shape(40, 2, 1, 16), torch.bfloat16, CPU)
    with launches() as made:
        situation.attend(Kernels(**launched_beside([triton_attention()], PLAIN, "attend"), smooth=PLAIN.smooth))
        usual = builds(made)
        tried = list(bench_kernels.ways(Shape(40, 2, 1, 16), CPU, repeats=1))
    assert [(one["way"], one["num_warps"], one["num_stages"]) for one in tried] == [
        ("over_prompts", 2, 3),
        ("over_texts", 1, 3),
    ]
    assert all(one["ms"] > 0 for one in tried)
    assert sorted(name for name, _ in builds(made) - usual) == ["attend_prompts", "attend_texts"]


def test_each_kernel_is_built_once_for_all_steps(monkeypatch):
    """Whatever their widths and methods, with the engine's own tensors."""

    def layers(decoder, device):
        from kvtune.captioning import triton_layers

        names = ("rms_norm", "silu_times", "rotate")
        return FusedLayers(
            decoder, device, SimpleNamespace(**launched_beside([triton_layers] * 3, plain_layers, *names))
        )

    like_a_gpu(monkeypatch)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    monkeypatch.setattr(card_pages, "kernels_for", lambda *given: kernels())
    monkeypatch.setattr(captioner, "FusedLayers", layers)
    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.bfloat16), eos=())
    images = random_images(3)
    requests = [CaptionRequest(n, images[n % 3], METHODS[n % 9], n, 3 + 5 * (n % 3)) for n in range(14)]
    engine = Captioner(model, max_new_tokens=40, lanes=7)
    with launches() as made:
        assert len(list(engine.run(requests[:1]))) == 1
        made.clear()  # trials, of another head size too
        assert len(list(engine.run(requests))) == 14
    assert len({one.grid for one in made}) > 10
    names = [name.strip("_") for name, _ in builds(made)]
    attention = ["attend_prompts", "attend_texts", "rms_norm", "rotate", "score_prompts", "score_texts"]
    assert sorted(names) == [*attention, "silu_times", "smooth", "sum_prompts", "sum_texts"]


def test_float32_is_multiplied_as_float32():
    """By tensor cores it would be cut off to 10 bits."""
    from kvtune.captioning import triton_attention, triton_tiles

    row = OneRow.of(CPU, torch.float32, 2, 1, 16)
    keys, values = row.cache[:, 0]
    with launches() as made:
        triton_attention.attend(row.query, *row.new, keys, values, row.layout, 0.3)
        triton_tiles.attend_tiles(row.query, keys, values, row.layout, 0.3, 0, [nobody(row.query, row.layout)])
    assert len(made) == 6
    assert not [one.kernel for one in made if "tf32" in one.code]


def test_products_of_rotary_positions_are_rounded_before_they_are_added():
    from kvtune.captioning import triton_layers

    query, turn = torch.randn(2, 2, 1, 16), torch.randn(2, 1, 16)
    with launches() as made:
        triton_layers.rotate(query, query, turn, turn)
    assert "mul.rn.f32" in made[0].code or "mul.f32" in made[0].code
    assert "fma" not in made[0].code


def test_the_largest_steps_and_prompts_can_be_launched():
    """The second and third axis of a grid have 65,535 places; 1,024 rows stand in up to 2,048 tiles."""
    from kvtune.captioning import triton_attention, triton_layers, triton_smoothing, triton_tiles

    def none(*shape):
        return torch.zeros(shape, dtype=torch.int32)

    nowhere = Layout(none(1024), none(1024, 1), none(2048, 16), none(2048), none(2048), none(1024), none(1040, 1))
    query, cache = torch.zeros(1024, 1, 1, 16), torch.zeros(2, 80, 2, 1, PAGE, 16)
    tokens, factors = torch.zeros(5120, 64, 1, 16), torch.zeros(80, 1024)
    with launches() as made:
        triton_attention.attend(query, query[:, :, 0], query[:, :, 0], *cache[:, 0], nowhere, 0.3)
        triton_tiles.attend_tiles(query, *cache[:, 0], nowhere, 0.3, 0, [nobody(query, nowhere)])
        triton_smoothing.smooth(*cache, nowhere.table, nowhere.newest, factors, factors, 0)
        triton_layers.rms_norm(tokens, tokens[0, 0, 0], 1e-6)
        triton_layers.silu_times(tokens, tokens)
        triton_layers.rotate(tokens, tokens, tokens[:, 0], tokens[:, 0])
    assert len(made) == 10
    assert all(place <= 65535 for one in made for place in one.grid[1:])
