"""Keys and values in pages are drawn towards those before them; idle rows and factors of 0 change nothing."""

import pytest
import torch
from compiled_kernels import ARCHITECTURES, compiled
from graph_like import RecordedStep
from hypothesis import given, settings
from hypothesis import strategies as st
from on_cuda import needs_cuda
from paged_caches import ROUNDING, bits, check, check_zero, naive_smooth, some_factors, some_pages
from triton_without_gpu import interpreted, needs_triton

from kvtune.captioning.paged_smoothing import smooth

KERNEL = """
import torch
from kvtune.captioning.triton_smoothing import smooth
from paged_caches import ROUNDING, check, check_zero, some_pages
ROUNDING[torch.bfloat16] *= 2  # the interpreter cuts off where a GPU rounds
for case, (heads, size, dtype) in enumerate(
    [(2, 64, torch.float32), (9, 80, torch.float16), (1, 128, torch.bfloat16), (3, 24, torch.bfloat16)]
):
    check(smooth, rows=4, layers=4, kv_heads=heads, head_dim=size, dtype=dtype, factors=torch.float64, seed=case)
check(smooth, rows=4, layers=4, kv_heads=2, head_dim=16, dtype=torch.float32, factors=torch.float32, permuted=True)
check_zero(smooth, torch.inf)
keys, values, table, slots = some_pages(4, 2, 1, 16)
smooth(keys, values, table, slots, torch.ones(0, 4), torch.ones(0, 4), 1)  # no layers
print("equal")
"""


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(4, 9),
    kv_heads=st.integers(1, 3),
    page=st.integers(1, 5),
    dtype=st.sampled_from(list(ROUNDING)),
    factors=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
    permuted=st.booleans(),
)
def test_the_newest_position_is_drawn_to_the_one_before(rows, kv_heads, page, dtype, factors, seed, permuted):
    """Of 3 layers, in a page or over its border."""
    check(
        smooth, rows=rows, layers=4, kv_heads=kv_heads, head_dim=5, dtype=dtype,
        factors=factors if dtype != torch.float64 else torch.float64, seed=seed, permuted=permuted, page=page,
    )  # fmt: skip


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -0.0])
def test_a_factor_of_zero_reads_nothing_and_keeps_every_bit(strange):
    check_zero(smooth, strange)


def test_no_number_is_read_from_the_device():
    """So that it can be part of a CUDA graph: recorded and replayed on other contents, and run where there are none."""
    keys, values, table, slots = some_pages(6, 3, 2, 8, dtype=torch.float64)
    factors = some_factors(2, 6, torch.float64)
    arguments = keys.clone(), values.clone(), table.clone(), slots.clone(), *factors
    with torch.inference_mode(False), RecordedStep() as recorded:
        smooth(*arguments, 1)
    other = *some_pages(6, 3, 2, 8, dtype=torch.float64, seed=5), *some_factors(2, 6, torch.float64)
    for place, new in zip(arguments, other, strict=True):
        place.copy_(new)
    expected = naive_smooth(arguments[0], *arguments[2:5], 1)
    recorded.replay()
    torch.testing.assert_close(arguments[0], expected)
    smooth(*(argument.to("meta") for argument in arguments), 1)


@pytest.mark.slow
@needs_triton
def test_the_kernel_computes_what_plain_torch_computes():
    assert interpreted(KERNEL) == "equal\n"


@needs_triton
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_kernel_compiles_and_spills_nothing(arch, dtype, head_dim):
    from kvtune.captioning.triton_smoothing import _HEADS, _smooth

    types = {"keys": f"*{dtype}", "values": f"*{dtype}", "table": "*i32", "slots": "*i32"}
    types |= {"on_keys": "*fp64", "on_values": "*fp64"}
    constants = {"KV_HEADS": 32, "PAGE": 32, "HEAD_DIM": head_dim, "HEAD_BLOCK": 128 if head_dim > 64 else 64}
    constants["HEADS"] = _HEADS
    constants |= {"table_entry": 1, "slots_row": 1, "on_keys_row": 1, "on_values_row": 1}  # a launch writes them in
    types |= {name: "i32" for name in _smooth.arg_names if name not in types.keys() | constants.keys()}
    types |= {"key_layer": "i64", "value_layer": "i64"}
    aligned = [name for name in types if name in ("keys", "values") or name.startswith(("key_", "value_"))]
    report = compiled(_smooth, types, constants, arch, aligned)
    assert report.local == 0
    assert report.registers <= 64


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(32, 128), (8, 64), (32, 80)])
def test_on_a_gpu_and_in_a_graph(dtype, kv_heads, head_dim):
    triton_smoothing = pytest.importorskip("kvtune.captioning.triton_smoothing")

    def in_a_graph(*arguments):
        kept = [argument.clone() for argument in arguments[:2]]
        triton_smoothing.smooth(*kept, *arguments[2:])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            triton_smoothing.smooth(*arguments)
        graph.replay()
        assert torch.equal(bits(kept[0]), bits(arguments[0]))
        assert torch.equal(bits(kept[1]), bits(arguments[1]))

    for function in (smooth, triton_smoothing.smooth, in_a_graph):
        check(
            function, rows=12, layers=4, kv_heads=kv_heads, head_dim=head_dim, dtype=dtype, factors=torch.float64,
            page=32, device="cuda",
        )  # fmt: skip
