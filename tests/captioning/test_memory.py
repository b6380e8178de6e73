"""The plan of the grid: what it promises, and what a grid really takes."""

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from limited_memory import LimitedMemory
from PIL import Image
from published_configs import PUBLISHED
from small_models import small_llava
from small_vlms import random_images, small_vlm
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from kvtune import KVSmooth
from kvtune.bench.engine.peak import measured_peak
from kvtune.captioning import Captioner, CaptionRequest, decoding, memory, paged_grid, paged_plan, planning
from kvtune.captioning import captioner as captioner_module
from kvtune.captioning.grid import Grid
from kvtune.captioning.memory import bytes_per_position, mlp_numbers, plan_grid, predict, prefill_bytes
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prompts import Prompts
from kvtune.errors import RequestError
from kvtune.models.families.llava import Llava
from kvtune.models.spread import Card


@pytest.fixture(scope="module")
def vlm():
    return small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))


def test_bytes_of_a_position_are_what_the_grid_allocates(vlm):
    grid = Grid(vlm, 3, 2)
    slots = grid.suffix_keys.shape[3]
    assert 2 * grid.suffix_keys.nbytes == 6 * slots * bytes_per_position(vlm)


@pytest.mark.parametrize(
    ("requests", "images", "lanes", "groups", "per_group"),
    [
        (256, 256, "auto", 256, 1),  # a baseline: one caption an image
        (512, 32, "auto", 32, 16),  # 16 trials that all fit
        (2048, 128, "auto", 128, 8),  # where they do not: half as many lanes
        (512, 1, "auto", 1, 512),
        (2048, 1, "auto", 1, 1024),
        (6, 3, "auto", 3, 2),
        (512, 32, 16, 2, 8),
        (512, 32, 3, 1, 3),
        (1, 1, "auto", 1, 1),
    ],
)
def test_shape_follows_the_stream_of_requests(vlm, requests, images, lanes, groups, per_group):
    plan = plan_grid(vlm, 20, 64, requests, images, lanes)
    assert (plan.groups, plan.lanes) == (groups, per_group)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_shape_follows_the_free_memory(vlm, monkeypatch, share):
    ample = plan_grid(vlm, 20, 64, 512, 32)
    free = int(share * (ample.peak - ample.weights))
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    tight = plan_grid(vlm, 20, 64, 512, 32)
    assert 1 <= tight.groups * tight.lanes < ample.groups * ample.lanes
    assert tight.peak - tight.weights <= free
    if tight.groups > 1:
        larger = predict(vlm, tight.groups + 1, tight.lanes, 20, 64)
        assert larger.peak - larger.weights > 0.6 * free  # no smaller than it had to be


def test_on_a_cpu_the_longest_captions_must_fit_too(vlm, monkeypatch):
    free = 2 * (plan_grid(vlm, 20, 127, 512, 32).peak - plan_grid(vlm, 20, 127, 512, 32).weights)
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    short, long = plan_grid(vlm, 20, 127, 512, 32), plan_grid(vlm, 20, 512, 512, 32)
    assert (short.growth, short.slots) == (0, long.slots)
    assert long.growth > 0 and long.groups < short.groups
    assert long.peak - long.weights + long.growth <= free


def big_enough(width=64, inner=172, heads=4, kv_heads=4, vocabulary=600, visual=16, dtype=torch.float32):
    """A model in which caches and activations of every kind can be the most, with its images' side in pixels."""
    torch.manual_seed(0)
    side = 4 * int(visual**0.5)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=side,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=4,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=1024,
        ),
        image_token_id=5,
        image_seq_length=visual,
    )
    return small_vlm(LlavaForConditionalGeneration(config).to(dtype).eval(), LongPrompts(), eos=()), side


class LongPrompts(Llava):
    """All prompts of one length, that of the image and six tokens."""

    def prepare(self, vlm, images, prompt):
        ids = torch.tensor([[1] + [5] * vlm.hf_model.config.image_seq_length + [7] * 5] * len(images))
        pixels = torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) / 64.0 - 2.0 for image in images])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels.to(vlm.dtype)}


@pytest.mark.parametrize(
    ("settings", "images", "lanes", "max_new_tokens"),
    [
        ({}, 20, 40, 20),
        ({"kv_heads": 2}, 20, 40, 20),
        ({"kv_heads": 1}, 20, "auto", 20),
        ({"visual": 4}, 20, 40, 20),
        ({"visual": 400}, 20, 40, 20),
        ({"visual": 400, "kv_heads": 1}, 20, 40, 20),
        ({"visual": 100, "dtype": torch.bfloat16}, 20, 40, 20),
        ({"vocabulary": 20000}, 20, 40, 20),
        ({"inner": 3000}, 20, 40, 20),
        ({"width": 256, "heads": 8, "inner": 700}, 20, 40, 20),
        ({}, 4, 8, 250),
        ({"kv_heads": 2}, 1, 2, 250),
    ],
)
def test_prediction_is_within_a_tenth_of_what_the_allocator_saw(monkeypatch, settings, images, lanes, max_new_tokens):
    """Weights left out, which anybody can count. The room for captions is taken whether they fill it or not."""
    model, side = big_enough(**settings)
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(images)]
    methods = [None, KVSmooth(0.9, 15, 0.2, 0, 2), KVSmooth(0.4, 3, 0.2, 0, 2), KVSmooth(0.5, 3, 0.2, 1, 2)]
    requests = [CaptionRequest(n, one, each, (n, each), 4) for n, one in enumerate(pictures) for each in methods]
    plans = []
    monkeypatch.setattr(planning, "plan_grid", lambda *given: plans.append(plan_grid(*given)) or plans[-1])
    captioner = Captioner(model, max_new_tokens=max_new_tokens, lanes=lanes)
    peak = measured_peak(model, lambda: list(captioner.run(requests)))
    assert plans[0].weights == sum(parameter.nbytes for parameter in model.hf_model.parameters())
    assert (plans[0].peak - plans[0].weights) / (peak - plans[0].weights) == pytest.approx(1, abs=0.1)


def test_growth_is_what_a_long_caption_takes_on_top(monkeypatch):
    monkeypatch.setattr(memory, "PLANNED_SLOTS", 32)
    model, side = big_enough()
    picture = Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8))
    requests = [CaptionRequest(n, picture, None, n) for n in range(12)]
    captioner = Captioner(model, max_new_tokens=50, lanes=12)
    peak = measured_peak(model, lambda: list(captioner.run(requests)))
    plan = predict(model, 1, 12, 22, 50)
    assert plan.growth > 0.4 * plan.peak
    assert plan.weights + plan.prefixes + plan.suffixes + plan.growth == pytest.approx(peak, rel=0.1)


def test_the_allocator_s_account_is_the_sum_of_live_tensors(vlm):
    def work():
        one = torch.ones(1000, 1000)
        two = one + 1
        three = two @ one
        del one, two
        return three.to(torch.float64)

    weights = sum(parameter.nbytes for parameter in vlm.hf_model.parameters())
    with LimitedMemory() as counted:
        work()
    assert measured_peak(vlm, work) - weights == pytest.approx(counted.peak, rel=1e-3) == pytest.approx(12e6, rel=1e-3)


def test_no_lanes_are_refused(vlm):
    with pytest.raises(RequestError, match="--lanes must be auto or a whole number above 0, not 0"):
        Captioner(vlm, lanes=0)


def test_the_plan_is_said(vlm, caplog):
    with caplog.at_level("INFO", logger=captioner_module.__name__):
        list(Captioner(vlm, max_new_tokens=2, lanes=2).run([CaptionRequest(0, random_images(1)[0])]))
    assert "decoding 1 image by 1 caption: at most 0 MiB (weights 0 MiB, prompts 0 MiB" in caplog.text


def test_long_prompts_are_run_in_smaller_batches(vlm, monkeypatch):
    monkeypatch.setattr(memory, "PREFILL_TOKENS", 60)
    seen = []
    hook = vlm.decoder.register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(tuple(keywords["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    prompts = Prompts(vlm).of(list("abcde"), random_images(5))
    seen.clear()
    try:
        prefixes = list(prefill(vlm, prompts))
    finally:
        hook.remove()
    assert [prefix.length for prefix in prefixes] == [prompt.length for prompt in prompts]
    assert sum(images for images, _ in seen) == 5
    assert all(images * tokens <= 60 for images, tokens in seen)
    assert max(images for images, _ in seen) > 1
    for prompt, prefix in zip(prompts, prefixes, strict=True):
        (alone,) = prefill(vlm, [prompt])
        torch.testing.assert_close(prefix.keys[0], alone.keys[0], atol=1e-5, rtol=1e-5)
    assert memory.prompts_together(700) == 1
    assert prefill_bytes(vlm, memory.prompts_together(30), 30) < prefill_bytes(vlm, 8, 30)


@pytest.mark.parametrize(
    ("sizes", "numbers"),
    [
        ({"intermediate_size": 100}, 300),
        ({}, 3 * 4 * 32),
        ({"intermediate_size": [64, 100]}, 300),
        ({"intermediate_size": 100, "num_experts_per_tok": 8, "moe_intermediate_size": 16}, 8 * (3 * 16 + 2 * 32)),
        ({"num_experts_per_tok": 2, "moe_intermediate_size": [16, 40], "intermediate_size": 10}, 2 * (120 + 64)),
        ({"intermediate_size": 100, "num_experts_per_tok": 2}, 2 * (300 + 64)),
    ],
)
def test_what_an_mlp_takes_of_any_configuration(sizes, numbers):
    assert mlp_numbers(SimpleNamespace(hidden_size=32, **sizes)) == numbers


@functools.cache
def llava_of_7b():
    """LLaVA-1.5-7B in bfloat16, of shapes alone; its card is said to be a GPU."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(PUBLISHED["llava-1.5"]()).to(torch.bfloat16)
    vlm = small_vlm(model, LongPrompts(), eos=())
    card = Card(torch.device("cuda", 0), range(32))
    return SimpleNamespace(
        **{name: getattr(vlm, name) for name in ("decoder", "dtype", "heads", "head_dim", "n_layers", "hf_model")},
        device=card.device,
        cards=[card],
    )


def test_no_more_prompts_are_run_together_than_are_planned(vlm, monkeypatch):
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    planned, most = planning.plan_pages, []
    monkeypatch.setattr(planning, "plan_pages", lambda *given: dataclasses.replace(planned(*given), prefill_tokens=50))
    monkeypatch.setattr(decoding, "prefill", lambda *given: most.append(given[3]) or prefill(*given))
    list(Captioner(vlm, max_new_tokens=3).run([CaptionRequest(n, one) for n, one in enumerate(random_images(6))]))
    assert {together(25) for together in most} == {2}


@pytest.mark.parametrize(("free", "together", "beside"), [(10, 1, 1.3), (26, 5, 3.3), (65, 8, 5.0), (125, 8, 5.0)])
def test_a_gpu_has_room_beside_its_pages_for_what_was_traced(monkeypatch, free, together, beside):
    """GiB: of cards of 24, 40, 80 and 141 GB, and what an allocator like PyTorch's kept of prompts that are run
    together, of steps, graphs and libraries; a vision tower has had its own before."""
    monkeypatch.setattr(paged_plan, "free_memory", lambda device: free * 2**30)
    plan = paged_plan.plan_pages(llava_of_7b(), 626, 512, 2048, 128)
    assert memory.prompts_together(626, plan.prefill_tokens) == together
    assert 0.9 < free - plan.cache / 2**30 - beside < 1.2 + 0.04 * free  # and no more


def test_what_is_cached_of_a_gpu_is_not_free(monkeypatch):
    """A vision tower has it again for the next images, in a stream of its own, and graphs for their steps."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1)
    assert memory.free_memory(torch.device("cuda", 0)) == 5
