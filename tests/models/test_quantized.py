"""Checkpoints that are quantized already: not quantized twice, planned by their files, tried before anything long."""

import json
import logging
import re
import shutil

import pytest
import torch
from graph_like import like_a_gpu
from published_configs import PUBLISHED
from small_vlms import random_images
from transformers.quantizers.quantizers_utils import should_convert_module

from kvtune.captioning import Captioner, CaptionRequest, paged_decoding
from kvtune.captioning.model_check import Proof, check_model, judge
from kvtune.errors import RequestError
from kvtune.models import get_family, load_model, loading, options
from kvtune.models.quantized import bytes_as_stored, leave_what_is_left, stored_quantization
from kvtune.models.weight_memory import check_memory, spans_for, weight_bytes_of

GIB = 2**30
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "modules_to_not_convert": ["visual"]}
BNB_4BIT = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}


@pytest.fixture
def folder(checkpoint, tmp_path):
    return shutil.copytree(checkpoint("llava-1.5"), tmp_path / "model")


def config_of(folder, stored):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": stored}))
    return get_family("llava-1.5").model_class().config_class.from_pretrained(folder)


@pytest.mark.parametrize(
    ("stored", "kind"), [(AWQ, "awq"), (BNB_4BIT, "4bit"), ({"quant_method": "fp8"}, "fp8"), (None, None)]
)
def test_how_weights_are_stored(folder, stored, kind):
    assert stored_quantization(config_of(folder, stored)) == kind


@pytest.mark.parametrize(("stored", "asked"), [(AWQ, "4bit"), (BNB_4BIT, "8bit")])
def test_what_is_quantized_is_not_quantized_in_another_way(folder, monkeypatch, stored, asked):
    """transformers would leave it as it is and say nothing, and a study would have the wrong bits on record."""
    config_of(folder, stored)
    monkeypatch.setattr(options, "find_spec", lambda name: True)
    with pytest.raises(RequestError, match=rf"model is quantized already \(\w+\); leave --load-in-{asked} out$"):
        load_model(folder, device="cpu", **{f"load_in_{asked}": True})


def test_quantized_weights_take_what_their_files_take(folder, monkeypatch):
    card, capability = torch.device("cuda", 0), [8, 0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(capability))
    size = (folder / "model.safetensors").stat().st_size
    assert bytes_as_stored(folder, config_of(folder, AWQ), card) == size
    assert bytes_as_stored(folder, config_of(folder, None), card) is None
    assert bytes_as_stored(folder, config_of(folder, {"quant_method": "compressed-tensors"}), card) is None
    fp8 = config_of(folder, {"quant_method": "fp8"})
    assert bytes_as_stored(folder, fp8, card) is None  # unpacked on an A100, left as it is on an H100
    capability[:] = [9, 0]
    assert bytes_as_stored(folder, fp8, card) == size


def test_memory_is_planned_by_the_files(monkeypatch):
    """Qwen2.5-VL-7B in AWQ's 4 bits: 6.5 GiB in place of 15.4."""
    family, config, stored = get_family("qwen2.5-vl"), PUBLISHED["qwen2.5-vl"](), int(6.5 * GIB)
    needed = weight_bytes_of(family, config, torch.float16, "awq", stored)
    assert needed.total == pytest.approx(stored, rel=1e-6)
    assert needed.beside == weight_bytes_of(family, config, torch.float16, None).beside
    assert len(set(needed.layers)) == 1
    # What is not quantized takes twice as much in float32 as in its files, and what is takes the same.
    config.dtype = torch.float16
    wide = weight_bytes_of(family, config, torch.float32, "awq", stored)
    assert wide.total == pytest.approx(2 * needed.beside + needed.total - needed.beside, rel=1e-4)
    free = [8]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0] * GIB, 24 * GIB))
    check_memory("m", torch.device("cuda", 0), needed)
    cards = [torch.device("cuda", number) for number in range(2)]
    assert spans_for("m", cards, needed)[1].stop == 28
    free[0] = 6
    with pytest.raises(
        RequestError, match=r"about 7 GiB of GPU memory in float16, awq, .*; take a smaller model, free"
    ):
        check_memory("m", torch.device("cuda", 0), needed)


@pytest.mark.parametrize(
    ("family", "key", "names", "quantized"),
    [
        ("qwen2.5-vl", "modules_to_not_convert", ["visual", "lm_head"], 3 * 7),
        ("qwen2.5-vl", "llm_int8_skip_modules", ["visual", "lm_head", "model.layers.0.mlp"], 3 * 7 - 3),
        ("qwen2.5-vl", "llm_int8_skip_modules", ["model.visual", "lm_head"], 3 * 7),
        ("llava-1.5", "llm_int8_skip_modules", ["vision_tower", "multi_modal_projector", "language_model.lm_head"], 21),
        ("llava-next", "modules_to_not_convert", ["vision_tower", "multi_modal_projector", "lm_head"], 21),
        ("instructblip", "llm_int8_skip_modules", ["vision_model", "qformer", "language_projection", "lm_head"], 21),
    ],
)
def test_lists_of_what_is_not_quantized_are_read_as_they_were_meant(checkpoint, family, key, names, quantized):
    """Names of transformers 4, as most quantized checkpoints on the Hub have them."""
    model_class = get_family(family).model_class()
    config = model_class.config_class.from_pretrained(checkpoint(family))
    config.quantization_config = {"quant_method": "awq", key: names}
    leave_what_is_left(model_class, config)
    with torch.device("meta"):
        model = model_class(config)
    linears = [name for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    converted = [name for name in linears if should_convert_module(name, config.quantization_config[key])]
    assert len(converted) == quantized and all("language_model" in name and "layers." in name for name in converted)


def test_what_compressed_tensors_ignores_has_the_names_of_now(checkpoint):
    model_class = get_family("qwen2.5-vl").model_class()
    config = model_class.config_class.from_pretrained(checkpoint("qwen2.5-vl"))
    ignored = ["visual.blocks.0.attn.qkv", "lm_head", "re:^visual.merger.*"]
    config.quantization_config = {"quant_method": "compressed-tensors", "ignore": ignored}
    leave_what_is_left(model_class, config)
    *names, pattern = config.quantization_config["ignore"]
    assert names == [*ignored, "model.visual.blocks.0.attn.qkv", "lm_head"]
    assert re.match(pattern.removeprefix("re:"), "model.visual.merger.mlp.0") and pattern.startswith("re:")


def pretend_quantized(monkeypatch, broken=None, **marks):
    """Let a model be loaded as if it were quantized; ``broken`` is what its first layer raises."""
    load = loading.load_weights

    def loaded(*given):
        model = load(*given)
        for name, value in {"is_quantized": True, **marks}.items():
            setattr(model, name, value)
        if broken is not None:
            model.get_decoder().layers[0].register_forward_pre_hook(broken)
        return model

    monkeypatch.setattr(loading, "load_weights", loaded)


def test_layers_that_cannot_be_run_show_while_loading(folder, monkeypatch):
    def broken(*_):
        raise ImportError("FP8 kernels need the kernels package:\n pip install kernels")

    pretend_quantized(monkeypatch, broken)
    with pytest.raises(
        RequestError, match=r"^the quantized layers of model cannot be run: FP8 kernels need .* install"
    ):
        load_model(folder, device="cpu")


def test_a_quantized_model_is_checked_as_it_is(folder, monkeypatch):
    pretend_quantized(monkeypatch)
    vlm = load_model(folder, device="cpu", dtype="bfloat16")
    checked = check_model(vlm, random_images(1), max_new_tokens=2)
    assert {proof.dtype for proof in checked.proofs} == {"bfloat16"} and checked.proven is None


@pytest.mark.parametrize(
    ("dtype", "proven", "why"),
    [
        ("float32-4bit", False, "not proven: 0 of 1"),
        ("float32-8bit", None, "8-bit layers round by what else is in the batch"),
        ("float16-4bit", None, "half precision decides nothing"),
    ],
)
def test_what_a_proof_of_quantized_layers_is_worth(dtype, proven, why):
    found = judge([Proof(0, None, dtype, 8, 3, 0.5)])
    assert found[0] is proven and why in found[1]


def test_what_is_stored_in_8_bits_is_not_judged_as_float32(folder, monkeypatch):
    pretend_quantized(monkeypatch, is_loaded_in_8bit=True)
    checked = check_model(load_model(folder, device="cpu"), random_images(1), max_new_tokens=2)
    assert {proof.dtype for proof in checked.proofs} == {"float32-8bit"} and checked.proven is None


def test_8_bit_layers_are_not_captured(folder, monkeypatch):
    """LLM.int8() asks on the host whether there are outliers, in every layer of every step."""
    pretend_quantized(monkeypatch, is_loaded_in_8bit=True)
    grids = []
    like_a_gpu(monkeypatch)
    grid = paged_decoding.PagedGrid
    monkeypatch.setattr(paged_decoding, "PagedGrid", lambda *given: grids.append(grid(*given)) or grids[-1])
    vlm, request = load_model(folder, device="cpu"), CaptionRequest(0, random_images(1)[0], None)
    assert list(Captioner(vlm, max_new_tokens=2).run([request]))
    vlm.hf_model.is_loaded_in_8bit = False
    assert list(Captioner(vlm, max_new_tokens=2).run([request]))
    assert [grid._graphs is not None for grid in grids] == [False, True]


def test_hooks_of_accelerate_are_taken_off_on_one_device_too(folder, monkeypatch):
    """Up to bitsandbytes 0.47 accelerate puts them on every model in 8 bits; they copy the lists that layers fill."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is in kvtune's quantization extra")
    load = loading.load_weights

    def hooked(*given):
        given[-1].setdefault("device_map", {"": "cpu"})
        return accelerate.dispatch_model(load(*given), {"": "cpu"}, main_device="cpu", force_hooks=True)

    request = CaptionRequest(0, random_images(1)[0], None)
    alone = list(Captioner(load_model(folder, device="cpu"), max_new_tokens=4).run([request]))
    monkeypatch.setattr(loading, "load_weights", hooked)
    assert list(Captioner(load_model(folder, device="cpu"), max_new_tokens=4).run([request])) == alone


def test_what_is_printed_while_a_model_loads_is_no_result(folder, monkeypatch, capsys):
    """GPTQModel prints what it is and which kernels it takes, and ``--json`` promises one document on stdout."""
    pretend_quantized(monkeypatch, lambda *_: print("Kernel: selected"))
    load_model(folder, device="cpu")
    said = capsys.readouterr()
    assert not said.out and "Kernel: selected" in said.err


def test_bitsandbytes_does_not_say_the_same_for_every_product(folder, caplog):
    load_model(folder, device="cpu")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("bitsandbytes.autograd._functions").warning("MatMul8bitLt: inputs will be cast")
    assert not caplog.records
