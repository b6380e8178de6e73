"""The engine on a GPU: kernel, graphs and late tokens, against generate() on the same device."""

import pytest
import torch
from naive_attention import naive_part, some_cached
from small_models import small_llava
from small_vlms import random_images, reference_tokens, small_vlm
from test_engine import METHODS

from kvtune.captioning import Captioner, CaptionRequest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

IMAGES = random_images(4)


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_captions_equal_generate(kv_heads, cuda_graphs):
    """In float64, and so without the kernel."""
    model = small_vlm(small_llava(0, kv_heads=kv_heads).to("cuda"))
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % len(METHODS)], n) for n in range(24)]
    captioner = Captioner(model, max_new_tokens=150, lanes=7, cuda_graphs=cuda_graphs)
    captions = {caption.tag: caption for caption in captioner.run(requests)}
    for n, request in enumerate(requests):
        tokens, reason = reference_tokens(model, request.image, request.method, 150)
        assert (captions[n].token_ids, captions[n].finish_reason) == (tokens, reason)


def test_graphs_change_no_token_in_float32():
    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32).to("cuda"), eos=())
    requests = [CaptionRequest(n, IMAGES[n % 4], METHODS[n % len(METHODS)], n) for n in range(24)]
    with_graphs, without = (
        {c.tag: c.token_ids for c in Captioner(model, max_new_tokens=150, lanes=7, cuda_graphs=graphs).run(requests)}
        for graphs in (True, False)
    )
    assert with_graphs == without


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("shape", [(64, 32, 16, 128, 600), (512, 32, 1, 128, 160), (3, 2, 5, 80, 70)])
def test_the_kernel_computes_what_plain_torch_computes(dtype, tolerance, shape):
    triton_attention = pytest.importorskip("kvtune.captioning.triton_attention")
    groups, heads, queries, size, longest = shape
    torch.manual_seed(0)
    query = torch.randn(groups, heads, queries, size, device="cuda").to(dtype)
    cached = some_cached(groups, heads, longest, size, dtype, "cuda")
    expected, got = naive_part(query, cached), triton_attention.attend_part(query, cached)
    for name in ("highest", "total", "weighted", "output"):
        one, other = getattr(got, name), getattr(expected, name).float()
        torch.testing.assert_close(one, other, atol=tolerance, rtol=10 * tolerance)
