"""Places in memory beyond 2^31 numbers, which caches and scores of the largest cards have: none is taken for another.

By arithmetic for 1,024 rows and a cache of 141 GB: a layer of LLaVA-1.5-7B's has 8.7e8 numbers and all of its layers
2.8e10; scores of a 13B's 1,025 tiles over 3,000 tokens and a caption of 512 are 2.3e9.
"""

import pytest
from triton_without_gpu import interpreted, needs_triton

pytestmark = [pytest.mark.slow, needs_triton]

ATTENTION = """
import torch
from kvtune.captioning.kernels import nobody
from kvtune.captioning.triton_attention import attend
from kvtune.captioning.triton_tiles import attend_tiles
from naive_attention import paged_situation
from sparse_memory import spread_out
torch.manual_seed(0)
(*new, keys, values, layout), _, _ = paged_situation(2, 1, 2, 1, 16, torch.float16, prompt=40, text=40, idle=0)
far = spread_out([keys, values], [2**30 + 64])
assert keys.shape[0] > 4
for cache in ((keys, values), far):
    both = attend(*new, *cache, layout, 0.3), attend_tiles(new[0], *cache, layout, 0.3, 0, [nobody(new[0], layout)])
    found = [*both[0], both[1][0][layout.lanes_of_rows.long()], *cache]
    expected = found if cache[0] is keys else expected
    assert all(map(torch.equal, found, expected))
print("equal")
"""

SCORES = """
import torch
from kvtune.captioning import triton_tiles
from kvtune.captioning.triton_attention import constants
from naive_attention import paged_situation
from sparse_memory import sparse
torch.manual_seed(0)
(query, _, _, keys, values, layout), _, _ = paged_situation(20, 1, 2, 1, 16, torch.float16, prompt=32, text=32, idle=0)
assert layout.tiles.shape == (3, 16)
cached, shape = (keys, *keys.stride()[:3]), constants(2, 1, 16)
prompts = layout.tiles, layout.tile_images, layout.tile_lengths, layout.prompt_table, layout.prompt_table.stride(0)
texts = layout.tiles, layout.newest, layout.table, layout.table.stride(0)
by_tile, by_lane = {"LANES": 16, "QUERIES": 16, **shape}, {"QUERIES": 16, **shape}
found = []
for positions in (64, 2**25):
    scores = sparse(96 * positions, torch.float32)
    triton_tiles.score_prompts[(1, 3, 2)](query, *cached, *prompts, scores, positions, 32, 0.3, **by_tile)
    triton_tiles.score_texts[(48, 2)](query, *cached, *texts, scores, positions, 32, 32, 0.3, **by_lane)
    partial, output = torch.zeros(48, 2, 16), torch.zeros(48, 2, 16, dtype=torch.float16)
    triton_tiles.sum_prompts[(1, 3, 2)](scores, positions, values, *cached[1:], *prompts[1:], partial, **by_tile)
    triton_tiles.sum_texts[(48, 2)](scores, positions, 32, values, *cached[1:], *texts, partial, output, **by_lane)
    found.append((scores.view(96, positions)[:, :64], output))
assert all(map(torch.equal, *found))
print("equal")
"""

SMOOTHING = """
import torch
from kvtune.captioning.triton_smoothing import smooth
from paged_caches import some_factors, some_pages
from sparse_memory import spread_out
keys, values, table, slots = some_pages(2, 3, 2, 16, most=2, dtype=torch.float16)
slots[:] = torch.tensor([4, 6])
table[:] = torch.tensor([[1, 4], [2, 3]])
factors = some_factors(3, 2)
far = spread_out([keys, values], [2**30 + 2**20, 2**30])
for cache in ((keys, values), far):
    smooth(*cache, table, slots, *factors, 0)
assert all(map(torch.equal, far, (keys, values)))
print("equal")
"""


@pytest.mark.parametrize("code", [ATTENTION, SCORES, SMOOTHING], ids=["attention", "scores", "smoothing"])
def test_numbers_far_away_are_those_close_by(code):
    assert interpreted(code) == "equal\n"
