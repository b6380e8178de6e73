"""The engine on a GPU: kernels, graphs, pages and late tokens, against generate() on the same device."""

import copy
import dataclasses
import functools

import pytest
import torch
from engine_requests import METHODS
from naive_attention import paged_situation, relative_error
from small_models import small_llava
from small_vlms import References, random_images, small_vlm

from kvtune.captioning import Captioner, CaptionRequest, planning
from kvtune.captioning.kernels import PLAIN, kernels_for, nobody
from kvtune.captioning.paged_attention import attend, attend_tiles, put
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prompts import Prompts
from kvtune.methods.scaled_products import scaled_products
from kvtune.models.decoder_inputs import Prompt, VisualTokens

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

IMAGES = random_images(4)
LONGEST = 70
"""Tokens of a caption at most, which take three pages; the time of a card counts."""

DEVICES = [f"cuda:{n}" for n in range(torch.cuda.device_count())][:2]
"""With two GPUs, everything runs on the second as well, which is not the current one."""


@functools.cache
def model_on(device, kv_heads, dtype=torch.float64, **settings):
    """With what generate() writes for the images on that device; in float64 without the kernels."""
    model = small_vlm(small_llava(0, kv_heads=kv_heads, dtype=dtype).to(device), **settings)
    return model, References(model, IMAGES, LONGEST)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kv_heads", "cuda_graphs"), [(2, True), (4, True), (2, False)])
def test_captions_equal_generate(kv_heads, cuda_graphs, device):
    model, expected = model_on(device, kv_heads)
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % len(METHODS)], n) for n in range(24)]
    captioner = Captioner(model, max_new_tokens=LONGEST, lanes=7, cuda_graphs=cuda_graphs)
    captions = {caption.tag: caption for caption in captioner.run(requests)}
    for n, request in enumerate(requests):
        assert (captions[n].token_ids, captions[n].finish_reason) == expected(n % 4, request.method, LONGEST)


def test_captions_by_the_kernels_equal_generate():
    """In float32, where they do unless two logits are all but the same."""
    model, expected = model_on("cuda", 2, torch.float32, eos=())
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % len(METHODS)], n) for n in range(24)]
    captions = {c.tag: c.token_ids for c in Captioner(model, max_new_tokens=LONGEST, lanes=7).run(requests)}
    others = [n for n, one in enumerate(requests) if captions[n] != expected(n % 4, one.method, LONGEST)[0]]
    assert len(others) <= 2


def test_few_pages_change_no_caption(monkeypatch):
    """Captions that give way, and rows that move, with graphs."""
    plan = planning.plan_pages
    monkeypatch.setattr(planning, "plan_pages", lambda *given: dataclasses.replace(plan(*given), pages=14))
    model, expected = model_on("cuda", 2, eos=())
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % 5], n, (3, 20, LONGEST)[n % 3]) for n in range(24)]
    captions = {caption.tag: caption for caption in Captioner(model, max_new_tokens=LONGEST, lanes=8).run(requests)}
    for n, request in enumerate(requests):
        assert captions[n].token_ids == expected(n % 4, request.method, request.max_new_tokens)[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_are_as_exact_as_float32_where_no_kernel_has_a_part(dtype):
    """Around generate(), and wherever keys are read as they lie in a longer cache."""
    numbers = torch.Generator("cuda").manual_seed(0)
    query, keys = (torch.randn(3, 2, n, 64, generator=numbers, device="cuda").mul(9).to(dtype) for n in (4, 700))
    scores = scaled_products(query, keys[:, :, 5:600], 0.125)
    exact = query.double() @ keys[:, :, 5:600].double().transpose(2, 3) * 0.125
    assert scores.dtype == torch.float32 and relative_error(scores, exact) < 1e-4


@pytest.mark.parametrize("device", DEVICES)
def test_new_images_do_not_wait_for_what_runs(device):
    model, _ = model_on(device, 2)
    images, found = random_images(8, seed=1), Prompts(model)
    for first in (0, 2, 4):  # libraries, and memory that is kept
        found.of([str(first), str(first + 1)], images[first : first + 2])
    torch.cuda.synchronize(device)
    with torch.cuda.device(device):
        torch.cuda._sleep(3 * 10**9)  # more than a second
        busy = torch.cuda.Event()
        busy.record()
    new = found.of(["6", "7"], images[6:])
    assert not busy.query()
    for one, other in zip(new, Prompts(model).of(["6", "7"], images[6:]), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one.tensors, other.tensors, strict=True))
    for one, other in zip(new, found.of(["6", "7"], images[6:]), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one.tensors, other.tensors, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_graphs_change_no_token_in_float32(device):
    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32).to(device), eos=())
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % len(METHODS)], n) for n in range(24)]
    captioners = (Captioner(model, max_new_tokens=LONGEST, lanes=7, cuda_graphs=graphs) for graphs in (True, False))
    with_graphs, without = ({c.tag: c.token_ids for c in captioner.run(requests)} for captioner in captioners)
    assert with_graphs == without


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("shape", [(336, 24, 32, 1, 128), (64, 4, 4, 7, 128), (40, 3, 2, 3, 80), (40, 3, 4, 2, 64)])
def test_the_kernels_compute_what_float64_does(dtype, most, shape):
    torch.manual_seed(0)
    _, _, kv_heads, share, size = shape
    kernels = kernels_for(torch.device("cuda"), dtype, kv_heads, share, size)
    assert kernels is not PLAIN
    arguments, _, live = paged_situation(*shape, dtype, prompt=626, text=256, device="cuda")
    as_float64 = [tensor.double() for tensor in arguments[:-1]]
    expected = attend(*as_float64, arguments[-1], size**-0.5)
    output, entropy = kernels.attend(*arguments, size**-0.5)
    assert relative_error(output[live], expected[0][live]) < most
    assert relative_error(entropy.mean(1)[live], expected[1][live, 0]) < most
    assert not output[~live].any()
    for cache, other in zip(arguments[3:5], as_float64[3:5], strict=True):
        assert torch.equal(cache[1:].double(), other[1:])


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(64, 4, 4, 7, 128), (40, 3, 2, 3, 80)])
def test_the_kernels_for_methods_compute_what_float64_does(dtype, most, shape):
    torch.manual_seed(0)
    kernels = kernels_for(torch.device("cuda"), dtype, *shape[2:])
    assert kernels is not PLAIN
    (query, key, value, keys, values, layout), _, _ = paged_situation(
        *shape, dtype, prompt=300, text=100, device="cuda"
    )
    put(key, value, keys, values, layout)
    acting, there = [nobody(query, layout)], layout.tiles.flatten() >= 0
    expected, _ = attend_tiles(query.double(), keys.double(), values.double(), layout, 0.1, 0, acting)
    output, _ = kernels.attend_tiles(query, keys, values, layout, 0.1, 0, acting)
    assert relative_error(output[there], expected[there]) < most


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 5e-2), (torch.float16, 1e-2), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_prompts_of_any_length_are_run_together(kv_heads, dtype, most):
    """What hides padding must hide it in whichever of PyTorch's kernels takes it, and rows of padding see nothing."""
    torch.manual_seed(0)
    small = small_llava(0, kv_heads=kv_heads, dtype=dtype, head_dim=64).to("cuda")
    prompts = [
        Prompt(torch.randn(n, 32, device="cuda").to(dtype), torch.arange(n, device="cuda"), n, visual, (7,))
        for n in (130, 61, 100, 130)
        for visual in [VisualTokens(torch.arange(n, device="cuda") < 16, None)]
    ]
    exact = [
        prompt.moved(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor) for prompt in prompts
    ]
    exact_model = small_vlm(copy.deepcopy(small).double())
    with torch.inference_mode():
        together = list(prefill(small_vlm(small), prompts))
        apart = [prefix for prompt in exact for prefix in prefill(exact_model, [prompt])]
    for one, right in zip(together, apart, strict=True):
        assert relative_error(one.keys[0], right.keys[0]) < most
        assert relative_error(one.values[0], right.values[0]) < most
        assert relative_error(one.end.facts.outputs, right.end.facts.outputs) < most
