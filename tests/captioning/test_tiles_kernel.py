"""Attention of rows on which methods act: the kernels against plain torch, and built for GPUs without one."""

import pytest
from compiled_kernels import ARCHITECTURES, compiled
from triton_without_gpu import interpreted, needs_triton

pytestmark = [pytest.mark.slow, needs_triton]

INTERPRETED = """
import dataclasses
import torch
from kvtune.captioning.paged_attention import attend_tiles, put
from kvtune.captioning.triton_tiles import attend_tiles as by_kernel
from kvtune.methods.acting import Acting
from kvtune.methods.seen import SeenPositions
from naive_attention import paged_situation, read_positions, relative_error

class Changes:
    changes_attention = reads_entropy = True
    layers = range(3)
    def change_scores(self, seen, scores):
        nearer = seen.query.to(scores.dtype).sum(-1, keepdim=True) / (1 + torch.arange(scores.shape[-1]))
        return scores.mul_(1.3).add_(nearer)
    def change_weights(self, seen, weights):
        return weights / weights.sum(-1, keepdim=True) * 1.1
    def change_sum(self, seen, weights):
        changed = torch.cat([weights[..., :7] * 0.5, weights[..., 7:]], dim=-1)
        return changed.transpose(1, 2).contiguous().transpose(1, 2)

torch.manual_seed(0)
for dtype, most in ((torch.float32, 1e-6), (torch.float16, 4e-4)):  # the interpreter has no products in bfloat16
    for shape in ((9, 3, 2, 1, 32), (5, 2, 2, 7, 80), (2, 1, 1, 2, 32, 1600, 300)):
        (query, key, value, keys, values, layout), _, live = paged_situation(*shape[:5], dtype, *shape[5:])
        put(key, value, keys, values, layout)
        read = read_positions(dataclasses.replace(layout, newest=layout.newest + 1), len(keys))
        exact = [tensor.double() for tensor in (query, keys, values)]
        for cache in (keys, values):  # what lies where nobody looks
            cache.transpose(1, 2)[~read] = torch.nan
        query = query.transpose(0, 1).contiguous().transpose(0, 1)
        for first, kinds in ((0, [[Changes()]]), (1, [[]]), (0, [[], [Changes()]])):
            part = layout.ending(first)
            if len(kinds) > 1:
                part = part.with_nobody()
            lanes = part.tiles.flatten().long()
            nobody = len(lanes) - part.tiles.shape[1]
            classes = torch.zeros(3, len(lanes), part.prompt_table.shape[1] * 32, dtype=torch.bool)
            there, acting = torch.zeros_like(lanes, dtype=torch.bool), []
            for number, states in enumerate(kinds):
                own = (lanes >= 0).nonzero()[number :: 3, 0] if len(kinds) > 1 else (lanes >= 0).nonzero()[:, 0]
                there[own] = True
                index = torch.cat([own, torch.tensor([nobody, nobody])]) if len(kinds) > 1 else None
                seen = lanes if index is None else lanes[index]
                acting.append(Acting(states, SeenPositions(seen, classes, seen, seen), index))
            expected = attend_tiles(*exact, part, 0.3, 1, acting)
            got = by_kernel(query, keys, values, part, 0.3, 1, acting)
            assert got[0].dtype == dtype and got[0].isfinite().all()
            if there.any():
                assert relative_error(got[0][there], expected[0][there]) < most
            of_changed = acting[-1].index[:-2] if acting[-1].index is not None else there
            if kinds[-1] and len(got[1][of_changed]):
                assert relative_error(got[1][of_changed], expected[1][of_changed]) < 1e-5
print("equal")
"""


def test_the_kernels_compute_what_plain_torch_computes():
    assert interpreted(INTERPRETED) == "equal\n"


@pytest.mark.parametrize(
    ("dtype", "arch", "head_dim", "share"),
    [
        *(("bf16", arch, 128, 1) for arch in ARCHITECTURES),
        *((dtype, 90, 80, 1) for dtype in ("bf16", "fp16", "fp32")),
        *((dtype, 90, 128, 7) for dtype in ("bf16", "fp32")),
    ],
)
def test_the_kernels_can_be_built_for_a_gpu(dtype, arch, head_dim, share):
    from kvtune.captioning import triton_attention, triton_tiles

    shape = triton_attention.constants(32, share, head_dim)
    itemsize = {"bf16": 2, "fp16": 2, "fp32": 4}[dtype]
    queries = triton_attention.queries_of_a_tile(16, share, itemsize)
    stages = triton_attention.stages_for(shape["HEAD_BLOCK"], itemsize)
    sizes = ("page_stride", "head_stride", "position_stride", "positions", "of_prompts", "of_texts")
    kinds = {
        **dict.fromkeys(("query", "keys", "values", "output"), f"*{dtype}"),
        **dict.fromkeys(("scores", "weights", "partial"), "*fp32"),
        **dict.fromkeys(("tiles", "tile_images", "tile_lengths", "prompt_table", "newest", "table"), "*i32"),
        **dict.fromkeys(("prompt_table_stride", "table_stride", *sizes), "i32"),
        "scaling": "fp32",
    }
    by_tile = {"LANES": 16, "QUERIES": queries, **shape}
    by_lane = {"QUERIES": triton_attention.queries_of_a_row(share), **shape}
    for kernel, constants, warps in (
        (triton_tiles.score_prompts, by_tile, triton_attention.warps_for(queries)),
        (triton_tiles.score_texts, by_lane, 4),
        (triton_tiles.sum_prompts, by_tile, triton_attention.warps_for(queries)),
        (triton_tiles.sum_texts, by_lane, 4),
    ):
        signature = {name: kinds[name] for name in kernel.arg_names if name not in constants}
        anywhere = ("tiles", "tile_images", "tile_lengths", "prompt_table_stride", "table_stride", "scaling")
        aligned = [name for name in signature if name not in anywhere]
        report = compiled(kernel, signature, constants, arch, aligned, warps, stages)
        assert (report.ahead > 0) == (stages > 3)  # the next page is on its way while one is computed with
        assert report.registers <= 255 and report.local == 0, report  # nothing spills
        assert report.shared <= 99 * 1024  # what the smallest of these architectures lets a program have
