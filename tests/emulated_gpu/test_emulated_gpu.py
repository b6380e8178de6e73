"""The engine as it is on GPUs, on cards that are not there; ``.ci/emulated-gpu`` runs it.

PyTorch's CUDA build, its allocator, streams and graphs, and Triton's compiler and launches are real; what kernels
compute is computed on the CPU.
"""

import os

import pytest

if "EMULATED_GPU_ORDER" not in os.environ:
    pytest.skip("needs PyTorch's CUDA build and no GPU: .ci/emulated-gpu", allow_module_level=True)

import emulated_gpu
import torch
from checkpoints import SAVERS
from engine_requests import METHODS
from family_runs import METHODS as OF_FAMILIES
from family_runs import STEPS, pictures
from newer_checkpoints import NEWER, packages_for_videos_stood_in_for, save_qwen3_vl_moe
from small_models import small_llava
from small_vlms import References, random_images, small_vlm

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.models import load_model

FAMILIES = SAVERS | NEWER | {"qwen3_vl_moe": save_qwen3_vl_moe}
DEVICES = ["cuda:0", "cuda:1", "cuda:0,cuda:1"]
TOKENS = 4 if emulated_gpu.KERNELS == "interpreted" else 20


@pytest.fixture(autouse=True)
def every_kernel(caplog):
    """No kernel may be left out unnoticed."""
    yield
    assert not [record for record in caplog.records if "kernel" in record.getMessage()]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_every_method_writes_what_generate_writes(device, kv_heads):
    """With more images than are prepared at once: what is late with one must not be hidden by what was there before."""
    images = random_images(24)
    on_cpu, on_card = (small_llava(0, kv_heads=kv_heads, dtype=torch.float32).to(place) for place in ("cpu", device))
    expected = References(small_vlm(on_cpu, eos=()), images, TOKENS)
    pairs = [(n % len(images), METHODS[n % len(METHODS)]) for n in range(2 * len(images))]
    requests = [
        CaptionRequest(n, images[image], method, pair) for n, pair in enumerate(pairs) for image, method in [pair]
    ]
    before = torch.cuda.memory_allocated("cuda:0")
    captions = list(Captioner(small_vlm(on_card, eos=()), max_new_tokens=TOKENS).run(requests))
    assert len(captions) == len(requests)
    for caption in captions:
        assert caption.token_ids == expected(*caption.tag, TOKENS)[0], caption.tag
    if device == "cuda:1":
        assert torch.cuda.memory_allocated("cuda:0") == before


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("device", DEVICES)
def test_every_family_writes_what_it_writes_on_a_cpu(device, name, tmp_path):
    FAMILIES[name](tmp_path)
    with packages_for_videos_stood_in_for():
        on_cpu, on_cards = (captions_of(load_model(tmp_path, place, "float32")) for place in ("cpu", device))
    assert on_cards == on_cpu


def captions_of(vlm):
    """Captions of a model without an end of text, by picture and method."""
    vlm.hf_model.generation_config.eos_token_id = None
    methods = [None, *OF_FAMILIES]
    requests = [CaptionRequest(n, one, method, (n, method)) for n, one in enumerate(pictures()) for method in methods]
    return {caption.tag: caption.token_ids for caption in Captioner(vlm, max_new_tokens=STEPS).run(requests)}


def test_what_does_not_wait_for_another_stream_is_seen():
    """Else nothing above would say anything of streams."""
    number, other = torch.zeros(1, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(other):
        late = number + 1
    read = late + 0
    if os.environ["EMULATED_GPU_ORDER"] == "lazy":
        assert read.isnan()
    torch.cuda.current_stream().wait_stream(other)
    assert late.item() == 1
