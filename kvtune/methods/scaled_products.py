"""Scores of attention: products of queries and keys."""

import torch
from torch import Tensor

from kvtune.methods.without_autocast import without_autocast


def scaled_products(query: Tensor, keys: Tensor, scaling: float) -> Tensor:
    """``scaling * query @ keys^T`` in at least float32, as fused attention has it inside, whatever the numbers' type.

    Before they are scaled, products reach some hundreds, of which bfloat16 leaves steps of 1 or 2: rounded to it,
    weights are off by a tenth, and by half where keys have a large bias.

    Parameters
    ----------
    query
        [n, kv_heads, queries, head_dim].
    keys
        [n, kv_heads, positions, head_dim]; copied nowhere on a GPU, elsewhere one of n at a time.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    with without_autocast(query.device.type):
        if query.dtype == wide:
            return torch.matmul(query * scaling, keys.transpose(2, 3))
        if query.is_cuda:
            flat = query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2)
            return torch.bmm(*flat, out_dtype=wide).mul_(scaling).unflatten(0, query.shape[:2])
        each = zip(query, keys, strict=True)
        return torch.stack([own.to(wide) * scaling @ cached.to(wide).transpose(1, 2) for own, cached in each])
