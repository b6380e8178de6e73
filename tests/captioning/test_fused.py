"""A decoder's small operations, fused: what is replaced computes the same, and all is as it was after the block."""

import logging
import sys
from contextlib import ExitStack
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from compiled_kernels import ARCHITECTURES, compiled
from on_cuda import needs_cuda
from small_decoders import decoder, logits
from small_models import llava_inputs, small_llava
from small_vlms import random_images, small_vlm
from torch import nn
from transformers import (
    AutoModel,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen2_5_VLTextConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.llama import modeling_llama
from triton_without_gpu import interpreted, needs_triton

from kvtune.captioning import Captioner, CaptionRequest, plain_layers
from kvtune.captioning.fused import FusedLayers
from kvtune.methods import KVSmooth

CPU = torch.device("cpu")
TYPES = [torch.float32, torch.float16, torch.bfloat16]
ROTARY = "transformers.models.llama.modeling_llama.apply_rotary_pos_emb"

KERNELS = """
import torch
from kvtune.captioning import plain_layers, triton_layers
ATOL = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-5}

def check(name, *tensors):
    dtype = tensors[0].dtype
    expected = getattr(plain_layers, name)(*tensors)
    got = getattr(triton_layers, name)(*tensors)
    for one, right in zip(got, expected) if isinstance(got, tuple) else [(got, expected)]:
        assert one.dtype == right.dtype and one.shape == right.shape
        # The interpreter cuts bfloat16 off where a GPU rounds it; float16 differs in numbers that are between two.
        torch.testing.assert_close(one, right, atol=ATOL[dtype], rtol=4 * torch.finfo(dtype).eps)
        if dtype == torch.float16:
            assert (one != right).float().mean() < 0.01, name

torch.manual_seed(0)
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    for size in (96, 172, 4096) if dtype == torch.float16 else (96, 172):
        hidden, weight = 3 * torch.randn(2, 1, size), torch.randn(size)
        check("rms_norm", hidden.to(dtype), weight.to(dtype), 1e-5)
    wide = torch.randn(3, 2, 200).to(dtype)
    check("rms_norm", wide[..., :96], weight[:96].to(dtype), 1e-6)
    check("rms_norm", wide.transpose(1, 2), weight[:2].to(dtype), 1e-6)
    for shape in ((3, 1, 172), (1, 1, 2048), (5,)):
        gate, up = 4 * torch.randn(shape), torch.randn(shape)
        check("silu_times", gate.to(dtype), up.to(dtype))
    check("silu_times", wide[..., :7], wide[..., 7:14])
    for heads, key_heads, size in ((4, 4, 128), (9, 1, 80), (16, 2, 64), (3, 3, 24)):
        query, key = (torch.randn(3, 1, n, size).to(dtype).transpose(1, 2) for n in (heads, key_heads))
        for rows in (1, 3):
            check("rotate", query, key, *(torch.randn(rows, 1, size).to(dtype) for _ in range(2)))
    mixed = torch.randn(3, 1, 2, 24, 5).to(dtype)[..., 0].transpose(1, 2)
    check("rotate", mixed, mixed, *torch.randn(2, 3, 1, 24).to(dtype))
    inside = torch.randn(4, 3, 1, 2, 30).to(dtype)[..., :24]  # of larger tensors, with steps of their own
    check("rotate", mixed, inside[0].transpose(1, 2), inside[1, :, :, 0].contiguous(), inside[2, :, :, 1])
    check("rotate", inside[0].transpose(1, 2), mixed, inside[1, :, :, 0], inside[2, :, :, 1])
    check("rotate", mixed, mixed, *torch.randn(2, 3, 24, 1).to(dtype).transpose(2, 3))
    query, turn = torch.randn(2, 2, 1, 16).to(dtype), torch.randn(2, 1, 16).to(dtype)
    if dtype != torch.bfloat16:
        once = [layers.rotate(query, query, turn, turn)[0] for layers in (triton_layers, plain_layers)]
        assert torch.equal(*once)
print("equal")
"""

DECODER = """
import torch
from kvtune.captioning import triton_layers
from kvtune.captioning.fused import FusedLayers
from small_decoders import decoder, logits
for dtype, tolerance in ((torch.float32, 3e-6), (torch.float16, 4e-3), (torch.bfloat16, 6e-2)):
    model = decoder(dtype)
    expected = logits(model)
    with FusedLayers(model, torch.device("cpu"), triton_layers).applied() as replaced:
        got = logits(model)
    assert len(replaced) == 8, replaced
    assert (got - expected).norm() < tolerance * expected.norm(), (dtype, (got - expected).norm() / expected.norm())
    assert torch.equal(logits(model), expected)
print("equal")
"""


class Counted:
    """Plain torch in place of kernels, with how often each was asked for."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        def call(*arguments):
            self.calls[name] = self.calls.get(name, 0) + 1
            return getattr(plain_layers, name)(*arguments)

        return call


@pytest.mark.parametrize("dtype", TYPES)
def test_a_decoder_with_fused_layers_computes_what_it_did(dtype):
    model = decoder(dtype)
    expected, kernels = logits(model), Counted()
    with FusedLayers(model, CPU, kernels).applied() as replaced:
        assert sorted(replaced) == sorted(
            [f"layers.{n}.{part}" for n in (0, 1) for part in ("input_layernorm", "post_attention_layernorm", "mlp")]
            + ["norm", ROTARY]
        )
        kernels.calls.clear()
        assert torch.equal(logits(model), expected)
    # Three passes of two layers; the first is a prompt.
    assert kernels.calls == {"rms_norm": 3 * 5, "silu_times": 3 * 2, "rotate": 3 * 2}
    assert torch.equal(logits(model), expected)
    assert kernels.calls == {"rms_norm": 3 * 5, "silu_times": 3 * 2, "rotate": 3 * 2}


def test_the_engine_writes_the_same_captions():
    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    images, methods = random_images(2), [None, KVSmooth(0.5, start_layer=1, end_layer=3)]
    requests = [CaptionRequest(n, images[n % 2], methods[n // 2], n) for n in range(4)]

    def captions():
        return {c.tag: c.token_ids for c in Captioner(model, max_new_tokens=15, lanes=2).run(requests)}

    expected, kernels = captions(), Counted()
    with FusedLayers(model.decoder, CPU, kernels).applied():
        kernels.calls.clear()
        assert captions() == expected
    assert kernels.calls["rotate"] > 10


def test_all_is_undone_also_after_an_error():
    model, rotary = decoder(), modeling_llama.apply_rotary_pos_emb
    with pytest.raises(ZeroDivisionError), FusedLayers(model, CPU, plain_layers).applied():
        assert modeling_llama.apply_rotary_pos_emb is not rotary
        raise ZeroDivisionError
    assert modeling_llama.apply_rotary_pos_emb is rotary
    assert not [name for name, module in model.named_modules() if "forward" in module.__dict__]


def test_blocks_may_be_nested_and_end_in_any_order():
    one, other, rotary = decoder(), decoder(seed=1), modeling_llama.apply_rotary_pos_emb
    expected = logits(one), logits(other)
    outer, inner = ExitStack(), ExitStack()
    first = outer.enter_context(FusedLayers(one, CPU, plain_layers).applied())
    assert inner.enter_context(FusedLayers(one, CPU, plain_layers).applied()) == [
        ROTARY
    ]  # the rest is replaced already
    assert inner.enter_context(FusedLayers(other, CPU, plain_layers).applied()) == first
    outer.close()
    assert modeling_llama.apply_rotary_pos_emb is not rotary
    assert torch.equal(logits(one), expected[0])
    assert torch.equal(logits(other), expected[1])
    inner.close()
    assert modeling_llama.apply_rotary_pos_emb is rotary
    assert not [module for model in (one, other) for module in model.modules() if "forward" in module.__dict__]


def test_hooks_and_forwards_of_others_stay():
    model, seen = decoder(), []
    layer = model.layers[0]
    for name in ("input_layernorm", "mlp", "mlp.gate_proj"):
        layer.get_submodule(name).register_forward_hook(lambda module, args, output, name=name: seen.append(name))
    layer.mlp.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    own = layer.post_attention_layernorm.forward
    layer.post_attention_layernorm.forward = own
    expected = logits(model)
    calls, seen[:] = list(seen), []
    with FusedLayers(model, CPU, plain_layers).applied() as replaced:
        assert torch.equal(logits(model), expected)
    assert seen == calls
    assert len(seen) == 9
    assert "layers.0.post_attention_layernorm" not in replaced
    assert layer.post_attention_layernorm.__dict__["forward"] is own


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {"layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm", "layers.0.mlp"}


@pytest.mark.parametrize(
    ("config", "more", "expected"),
    [
        (LlamaConfig, {}, PLAIN),
        (LlamaConfig, {"mlp_bias": True, "attention_bias": True}, PLAIN),
        (LlamaConfig, {"hidden_act": "gelu"}, PLAIN - {"layers.0.mlp"}),
        (MistralConfig, {}, PLAIN),
        (Qwen2Config, {}, PLAIN),
        (Qwen3Config, {}, PLAIN | {"layers.0.self_attn.q_norm", "layers.0.self_attn.k_norm"}),
        (Qwen2_5_VLTextConfig, {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}, PLAIN),
        (GemmaConfig, {}, set()),  # (1 + weight) times the norm, and GELU
        (Gemma2Config, {}, set()),
        (Olmo2Config, {}, {"layers.0.mlp"}),  # rounds after the weight, not before
    ],
)
def test_only_what_computes_the_same_is_replaced(config, more, expected):
    torch.manual_seed(0)
    model = AutoModel.from_config(config(**SIZES, **more)).eval().to(torch.bfloat16)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    before = logits(model)
    scope = import_module(type(model).__module__)

    def rotary():
        return vars(scope).get("apply_rotary_pos_emb")  # Qwen2.5-VL has one of its own in older transformers

    usual = rotary()
    with FusedLayers(model, CPU, plain_layers).applied() as replaced:
        assert {name for name in replaced if not name.endswith("rotary_pos_emb")} == expected
        assert (rotary() is not usual) == (f"{scope.__name__}.apply_rotary_pos_emb" in replaced)
        assert torch.equal(logits(model), before)
    assert rotary() is usual


def test_a_rotary_function_that_turns_neighbours_is_left_alone(monkeypatch):
    def interleaved(q, k, cos, sin, unsqueeze_dim=1):
        def turned(x):
            first, second = x[..., ::2], x[..., 1::2]
            return x * cos.unsqueeze(unsqueeze_dim) + torch.stack([-second, first], -1).flatten(-2) * sin.unsqueeze(1)

        return turned(q), turned(k)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", interleaved)
    with FusedLayers(decoder(), CPU, plain_layers).applied() as replaced:
        assert ROTARY not in replaced
        assert modeling_llama.apply_rotary_pos_emb is interleaved


def test_a_replaced_rotary_function_takes_other_calls_as_before():
    rotary = modeling_llama.apply_rotary_pos_emb
    model, kernels = decoder(), Counted()
    query, key, turn = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 1, 8), torch.randn(2, 1, 8)
    others = [
        ((query.transpose(1, 2), key.transpose(1, 2), turn, turn), {"unsqueeze_dim": 2}),
        ((query.double(), key.double(), turn.double(), turn.double()), {}),
        ((query, key, turn.double(), turn), {}),
        ((query[0], key[0], turn[0], turn[0]), {"unsqueeze_dim": 0}),
        ((query.expand(2, 4, 3, 8), key, turn, turn), {}),
        ((query, key, turn[:, :, :1], turn[:, :, :1]), {}),
    ]
    with FusedLayers(model, CPU, kernels).applied(), torch.no_grad():
        replaced = modeling_llama.apply_rotary_pos_emb
        kernels.calls.clear()
        for arguments, named in others:
            for got, right in zip(replaced(*arguments, **named), rotary(*arguments, **named), strict=True):
                assert torch.equal(got, right)
        assert not kernels.calls
        replaced(query, key, turn[:1], turn[:1])
        assert kernels.calls == {"rotate": 1}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows_of_turns", [1, 2])
def test_prompts_are_turned_by_the_kernel_too(dtype, rows_of_turns):
    """As one token a row each, where no copy is made of queries and keys, and into the same places of memory."""
    rotary, kernels = modeling_llama.apply_rotary_pos_emb, Counted()
    query, key = (torch.randn(2, 5, heads, 8).to(dtype).transpose(1, 2) for heads in (4, 2))
    cos, sin = torch.randn(2, rows_of_turns, 5, 8).to(dtype)
    with FusedLayers(decoder(dtype), CPU, kernels).applied(), torch.no_grad():
        kernels.calls.clear()
        got = modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)
    assert kernels.calls == {"rotate": 1}
    for one, right in zip(got, rotary(query, key, cos, sin), strict=True):
        assert torch.equal(one, right) and one.stride() == right.stride()


def test_gradients_flow_as_before():
    model, kernels = decoder(), Counted()
    with FusedLayers(model, CPU, kernels).applied():
        kernels.calls.clear()
        model(inputs_embeds=torch.randn(1, 1, 32)).last_hidden_state.sum().backward()
    assert not kernels.calls
    assert model.layers[0].input_layernorm.weight.grad is not None


class Quantised(nn.Linear):
    """Stands in for a linear layer that holds its weight in another form."""


class GatedRMSNorm(nn.Module):
    """As decoders with linear attention have it."""

    def __init__(self):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(16)), 1e-6

    def forward(self, hidden, gate):
        return plain_layers.rms_norm(hidden, self.weight, self.variance_epsilon) * gate


def test_what_takes_other_arguments_is_left_alone():
    with FusedLayers(nn.Sequential(GatedRMSNorm()), CPU, plain_layers).applied() as replaced:
        assert replaced == []


def test_what_no_kernel_takes_is_left_alone():
    for model in (decoder(torch.float64), decoder().to("meta")):
        with FusedLayers(model, CPU, plain_layers).applied() as replaced:
            assert replaced == []
    model = decoder()
    model.layers[1].mlp.up_proj = Quantised(32, 64, bias=False)
    with FusedLayers(model, CPU, plain_layers).applied() as replaced:
        assert "layers.0.mlp" in replaced
        assert "layers.1.mlp" not in replaced
        model.double()
        inputs = torch.randn(1, 1, 32, dtype=torch.float64)
        with torch.no_grad():
            assert model(inputs_embeds=inputs).last_hidden_state.dtype == torch.float64


def test_nothing_is_replaced_on_a_cpu_or_without_triton(monkeypatch):
    with FusedLayers(decoder(), CPU).applied() as replaced:
        assert replaced == []
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "kvtune.captioning.triton_layers", raising=False)
    with FusedLayers(decoder(), torch.device("cuda")).applied() as replaced:
        assert replaced == []


def test_a_kernel_that_fails_is_said_in_one_line_and_left_out(caplog):
    def no_compiler(*arguments):
        raise RuntimeError("no C compiler\nat line 1")

    kernels = SimpleNamespace(rms_norm=no_compiler, silu_times=lambda gate, up: gate * up, rotate=plain_layers.rotate)
    with caplog.at_level(logging.WARNING), FusedLayers(decoder(), CPU, kernels).applied() as replaced:
        assert replaced == [ROTARY]
    assert [record.getMessage() for record in caplog.records] == [
        "silu_times is not fused, for its kernel is wrong on cpu in torch.float32",
        "rms_norm is not fused, for its kernel cannot be built: no C compiler at line 1",
    ]


def test_a_rotary_kernel_that_is_wrong_is_left_out(caplog):
    kernels = SimpleNamespace(**{name: getattr(plain_layers, name) for name in ("rms_norm", "silu_times")})
    kernels.rotate = lambda query, key, cos, sin: (query, key)
    with FusedLayers(decoder(), CPU, kernels).applied() as replaced:
        assert len(replaced) == 7 and ROTARY not in replaced
    assert [record.getMessage() for record in caplog.records] == [
        "rotate is not fused, for its kernel is wrong on cpu in torch.float32"
    ]


def test_random_numbers_of_others_are_as_they_were():
    model, state = decoder(), torch.get_rng_state()
    with FusedLayers(model, CPU, plain_layers).applied():
        pass
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@needs_triton
def test_the_kernels_compute_what_plain_torch_computes():
    assert interpreted(KERNELS + DECODER) == "equal\nequal\n"


SIGNATURES = {
    "_rms_norm": {"hidden": "*", "weight": "*", "normed": "*", "epsilon": "fp32", "hidden_row": "i32"},
    "_silu_times": {"gate": "*", "up": "*", "product": "*", "n": "i32"},
    "_rotate": dict.fromkeys(("query", "key", "turned_query", "turned_key", "cos", "sin"), "*")
    | dict.fromkeys(("query_row", "query_head", "key_row", "key_head", "cos_row", "sin_row"), "i32"),
}


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(("dtype", "arch"), [*(("bf16", arch) for arch in ARCHITECTURES), ("fp16", 90), ("fp32", 90)])
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        *(("_rms_norm", {"SIZE": size, "BLOCK": block}) for size, block in ((4096, 4096), (5120, 8192), (96, 128))),
        ("_silu_times", {"NUMBERS": 1024}),
        *(
            ("_rotate", {"QUERY_HEADS": 32, "KEY_HEADS": heads, "HALF": half, "HALF_BLOCK": block, "HEADS": 8})
            for heads, half, block in ((32, 64, 64), (8, 32, 32), (32, 40, 64))
        ),
    ],
)
def test_the_kernels_compile_and_spill_nothing(name, constants, arch, dtype):
    from kvtune.captioning import triton_layers

    signature = {key: kind.replace("*", f"*{dtype}") for key, kind in SIGNATURES[name].items()}
    aligned = [key for key in signature if key != "epsilon"]
    warps = triton_layers.norm_warps(constants["BLOCK"]) if name == "_rms_norm" else 4
    report = compiled(getattr(triton_layers, name), signature, constants, arch, aligned, warps)
    assert report.local == 0
    assert report.registers <= 64


@needs_cuda
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("name", "shapes", "more"),
    [
        ("rms_norm", [(336, 1, 4096), (4096,)], (1e-5,)),
        ("rms_norm", [(7, 1, 5120), (5120,)], (1e-6,)),
        ("silu_times", [(336, 1, 11008)] * 2, ()),
        ("rotate", [(336, 32, 1, 128), (336, 8, 1, 128), (336, 1, 128), (336, 1, 128)], ()),
        ("rotate", [(5, 32, 1, 80), (5, 32, 1, 80), (1, 1, 80), (1, 1, 80)], ()),
    ],
)
def test_the_kernels_on_a_gpu(name, shapes, more, dtype):
    triton_layers = pytest.importorskip("kvtune.captioning.triton_layers")
    torch.manual_seed(0)
    numbers = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    got = getattr(triton_layers, name)(*numbers, *more)
    plain = getattr(plain_layers, name)(*numbers, *more)
    exact = getattr(plain_layers, name)(*(number.double() for number in numbers), *more)
    for one, other, right in zip(got, plain, exact, strict=True) if name == "rotate" else [(got, plain, exact)]:
        assert (one - right).norm() < 2 * torch.finfo(dtype).eps * right.norm()
        if dtype != torch.float32:
            assert (one != other).float().mean() < 0.01  # the same roundings, but for numbers between two


@needs_cuda
@pytest.mark.parametrize("dtype", TYPES)
def test_a_decoder_on_a_gpu(dtype):
    model = small_llava(0, layers=2, kv_heads=2, dtype=dtype).to("cuda")
    inputs = {name: tensor.to("cuda") for name, tensor in llava_inputs(model, [3, 5]).items()}

    def first_logits():
        limits = {"max_new_tokens": 2, "min_new_tokens": 2, "output_logits": True, "return_dict_in_generate": True}
        with torch.inference_mode():
            return model.generate(**inputs, **limits, do_sample=False).logits[0]

    expected = first_logits()
    with FusedLayers(model.model.language_model, model.device).applied() as replaced:
        assert len(replaced) == 8
        got = first_logits()
    assert (got - expected).norm() < 30 * torch.finfo(dtype).eps * expected.norm()
    assert torch.equal(first_logits(), expected)
