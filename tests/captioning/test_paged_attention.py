"""Attention over pages: plain torch against loops, the kernels against plain torch, and built for GPUs without one."""

import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch
from compiled_kernels import ARCHITECTURES, compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import naive_paged, paged_situation
from triton_without_gpu import interpreted, needs_triton

from kvtune import captioning
from kvtune.captioning import kernels
from kvtune.captioning.paged_attention import attend, attend_tiles
from kvtune.captioning.pages import PAGE

INTERPRETED = """
import torch
from kvtune.captioning.kernels import Kernels, OneRow
from kvtune.captioning.paged_attention import attend, attend_tiles
from kvtune.captioning.triton_attention import attend as by_kernel
from kvtune.captioning.triton_smoothing import smooth
from kvtune.captioning.triton_tiles import attend_tiles
from naive_attention import paged_situation, read_positions, relative_error
torch.manual_seed(0)

def check(dtype, most, *shape, prompt=70, text=60, far=0):
    arguments, _, live = paged_situation(*shape, dtype, prompt, text)
    query, key, value, keys, values, layout = arguments
    query += far
    for tensor in (key, keys):  # scores of all positions far below 0
        tensor -= far
    query, key, value = (tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (query, key, value))
    as_float64 = [tensor.double() for tensor in (query, key, value, keys, values)]
    read = read_positions(layout, len(keys))
    for cache in (keys, values):  # what lies where nobody looks
        cache.transpose(1, 2)[~read] = torch.nan
    expected = attend(*as_float64, layout, 0.3)
    got = by_kernel(query, key, value, keys, values, layout, 0.3)
    assert got[0].dtype == dtype and got[1].dtype == torch.float32
    assert relative_error(got[0][live], expected[0][live]) < most
    assert relative_error(got[1].mean(1)[live], expected[1][live, 0]) < max(most if far else 0, 1e-6)
    assert not got[0][~live].any() and not got[1][~live].any()
    newest = layout.newest[live].long()
    read[layout.table[live].gather(1, (newest // 32)[:, None])[:, 0].long(), newest % 32] = True
    for cache, other in zip((keys, values), as_float64[3:5]):
        assert torch.equal(cache.transpose(1, 2)[read].double(), other.transpose(1, 2)[read])
        assert cache.transpose(1, 2)[~read].isnan().all()

for dtype, most in ((torch.float32, 1e-6), (torch.float16, 4e-4)):  # the interpreter has no products in bfloat16
    for shape in ((9, 3, 2, 1, 32), (20, 1, 1, 3, 24), (5, 2, 2, 7, 80), (3, 2, 2, 2, 128)):
        check(dtype, most, *shape)
    check(dtype, most, 3, 3, 1, 1, 32, prompt=1600, text=300)  # sums over many pages
    check(dtype, 5e-4, 4, 2, 2, 1, 32, far=5)
row = OneRow.of(torch.device("cpu"), torch.float32, 2, 3, 16)
row.try_attention(Kernels(by_kernel, smooth))
row.try_tiles(attend_tiles)
print("equal")
"""


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    images=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    share=st.integers(1, 3),
    prompt=st.integers(1, 70),
    text=st.integers(2, 70),
    lanes=st.sampled_from([2, 16]),
)
def test_plain_torch_is_one_softmax_a_row(seed, rows, images, kv_heads, share, prompt, text, lanes):
    torch.manual_seed(seed)
    arguments, image_of, live = paged_situation(
        rows, images, kv_heads, share, 8, torch.float64, prompt, text, lanes=lanes
    )
    expected = {row: naive_paged(arguments, image_of, row, 0.3) for row in range(rows) if live[row]}
    before = [tensor.clone() for tensor in arguments[3:5]]
    output, entropy = attend(*arguments, 0.3)
    layout = arguments[-1]
    for row, (naive_output, naive_entropy) in expected.items():
        torch.testing.assert_close(output[row], naive_output, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(entropy[row].mean(), naive_entropy, atol=1e-12, rtol=1e-12)
        newest = int(layout.newest[row])
        for cache, old, new in zip(arguments[3:5], before, arguments[1:3], strict=True):
            old[int(layout.table[row, newest // PAGE]), :, newest % PAGE] = new[row]
            old[0] = cache[0]
    for cache, old in zip(arguments[3:5], before, strict=True):
        assert torch.equal(cache, old)  # the new tokens are in their places, and nothing else has changed


@pytest.mark.slow
@needs_triton
def test_the_kernels_compute_what_plain_torch_computes():
    assert interpreted(INTERPRETED) == "equal\n"


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    ("dtype", "arch", "head_dim", "share"),
    [
        *(("bf16", arch, 128, 1) for arch in ARCHITECTURES),
        *((dtype, 90, head_dim, 1) for dtype in ("bf16", "fp16", "fp32") for head_dim in (64, 80)),
        *((dtype, 90, 128, 7) for dtype in ("bf16", "fp16", "fp32")),
    ],
)
def test_the_kernels_can_be_built_for_a_gpu(dtype, arch, head_dim, share):
    from kvtune.captioning import triton_attention

    shape = triton_attention.constants(32, share, head_dim)
    itemsize = {"bf16": 2, "fp16": 2, "fp32": 4}[dtype]
    queries = triton_attention.queries_of_a_tile(16, share, itemsize)
    stages = triton_attention.stages_for(shape["HEAD_BLOCK"], itemsize)
    strides = dict.fromkeys(("page_stride", "head_stride", "position_stride"), "i32")
    cache = {"keys": f"*{dtype}", "values": f"*{dtype}", **strides}
    prompts = {
        "query": f"*{dtype}",
        **cache,
        **dict.fromkeys(("tiles", "tile_images", "tile_lengths", "prompt_table"), "*i32"),
        "prompt_table_stride": "i32",
        "partial": "*fp32",
        "scaling": "fp32",
    }
    texts = {
        **dict.fromkeys(("query", "new_keys", "new_values", "output"), f"*{dtype}"),
        **cache,
        **dict.fromkeys(("table", "newest"), "*i32"),
        "table_stride": "i32",
        **dict.fromkeys(("partial", "entropy"), "*fp32"),
        "scaling": "fp32",
    }
    for kernel, signature, more, warps in (
        (
            triton_attention.attend_prompts,
            prompts,
            {"LANES": 16, "QUERIES": queries},
            triton_attention.warps_for(queries),
        ),
        (triton_attention.attend_texts, texts, {"QUERIES": triton_attention.queries_of_a_row(share)}, 4),
    ):
        aligned = [name for name, kind in signature.items() if kind.startswith("*")] + list(strides)
        report = compiled(kernel, signature, {**shape, **more}, arch, aligned, warps, stages)
        assert report.registers <= 255
        assert report.ahead == (3 if stages > 3 else 0)  # page number, key and value of the page to come
        assert report.shared <= 99 * 1024  # what the smallest of these architectures lets a program have
        if dtype != "fp32":
            assert report.local <= 16, report  # nothing spills


def kernels_that_fail(monkeypatch, *names):
    """Of a card that is not there, where trials of ``names`` fail."""

    def fails(*arguments):
        raise AssertionError("Loop-carried variable tile has initial type\nand more lines")

    row = SimpleNamespace(**{name: fails if name in names else print for name in ("try_attention", "try_tiles")})
    monkeypatch.setattr(kernels, "OneRow", SimpleNamespace(of=lambda *shapes: row))
    for module in ("triton_attention", "triton_smoothing", "triton_tiles"):
        monkeypatch.setitem(sys.modules, f"kvtune.captioning.{module}", kernels)
        monkeypatch.setattr(captioning, module, kernels, raising=False)
    for name in ("attend", "smooth"):
        monkeypatch.setattr(kernels, name, None, raising=False)
    monkeypatch.setattr(kernels, "attend_tiles", lambda *given: ("by kernels", *given), raising=False)
    return kernels.kernels_for(torch.device("cuda"), torch.bfloat16, 2, 1, 16)


def test_a_kernel_that_cannot_be_built_is_said_and_done_without(monkeypatch, caplog):
    assert kernels_that_fail(monkeypatch, "try_attention") is kernels.PLAIN
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert "cannot be built: Loop-carried variable tile has initial type" in caplog.text


def test_kernels_for_methods_are_built_when_one_acts(monkeypatch, caplog):
    assert kernels_that_fail(monkeypatch).attend_tiles(1, 2) == ("by kernels", 1, 2)
    monkeypatch.setattr(kernels, "PLAIN", kernels.Kernels(None, None, lambda *given: given))
    built = kernels_that_fail(monkeypatch, "try_tiles")
    assert built is not kernels.PLAIN and not caplog.messages
    assert built.attend_tiles(1, 2) == built.attend_tiles(1, 2) == (1, 2)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("methods' attention in plain torch")


def test_proofs_do_without_kernels(caplog):
    assert kernels.kernels_for(torch.device("cuda"), torch.float64, 2, 1, 16) is kernels.PLAIN
    assert kernels.kernels_for(torch.device("cpu"), torch.bfloat16, 2, 1, 16) is kernels.PLAIN
    assert not caplog.messages


@pytest.mark.parametrize("dtype", kernels.MOST_ERROR)
@pytest.mark.parametrize(("kv_heads", "share", "size"), [(2, 3, 16), (32, 1, 128), (1, 8, 80)])
def test_plain_torch_is_right_on_one_row(kv_heads, share, size, dtype):
    row = kernels.OneRow.of(torch.device("cpu"), dtype, kv_heads, share, size)
    row.try_attention(kernels.PLAIN)
    row.try_tiles(kernels.PLAIN.attend_tiles)


def no_newest(query, key, value, *given):
    return attend(query, 0 * key, 0 * value, *given)


def other_entropy(*given):
    output, entropy = attend(*given)
    return output, entropy * float("nan")


def no_second_page(query, key, value, keys, values, layout, scaling):
    table = layout.table.clone()
    table[:, 1] = 0
    output, entropy = attend(query, key, value, keys, values, dataclasses.replace(layout, table=table), scaling)
    return output, entropy


def no_second_page_of_prompts(query, key, value, keys, values, layout, scaling):
    table = layout.prompt_table.clone()
    table[:, 1] = 0
    return attend(query, key, value, keys, values, dataclasses.replace(layout, prompt_table=table), scaling)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"attend": no_second_page_of_prompts}, "outputs in float32 are off by"),
        ({"attend": no_newest}, "outputs in float32 are off by"),
        ({"attend": no_second_page}, "outputs in float32 are off by"),
        ({"attend": other_entropy}, "entropies in float32 are off by nan"),
        ({"smooth": lambda *given: None}, "smoothed keys and values in float32 are off by"),
    ],
)
def test_a_kernel_that_is_wrong_is_said_and_done_without(wrong, what, caplog):
    row = kernels.OneRow.of(torch.device("cpu"), torch.float32, 2, 3, 16)

    def build():
        row.try_attention(dataclasses.replace(kernels.PLAIN, **wrong))

    assert kernels.built_or("plain", "attention", build) == "plain"
    (line,) = caplog.messages
    assert line.startswith(f"attention in plain torch, several times slower, for the kernels are wrong here: {what}")


def test_kernels_for_methods_that_are_wrong_are_not_taken():
    row = kernels.OneRow.of(torch.device("cpu"), torch.float32, 2, 3, 16)
    with pytest.raises(kernels.WrongNumbersError, match="outputs in float32 are off by 1 "):
        row.try_tiles(lambda *given: (0 * attend_tiles(*given)[0], None))
