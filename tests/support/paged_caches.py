"""Caches of pages with rows in them, idle ones too, and the moving average over them written out."""

import torch

ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
"""Of numbers of a few units: once for the two small types, which are computed in float32, and in each operation."""


def some_pages(rows, layers, kv_heads, head_dim, page=4, most=3, dtype=torch.float32, seed=0, device="cpu"):
    """Keys, values, table and slots of ``rows`` rows, every third of which is idle; pages lie in random order."""
    torch.manual_seed(seed)
    shape = layers, 1 + rows * most, kv_heads, page, head_dim
    keys, values = (torch.randn(shape).to(device, dtype) for _ in range(2))
    table = (1 + torch.randperm(rows * most, dtype=torch.int32)).view(rows, most)
    slots = torch.randint(1, page * most, (rows,), dtype=torch.int32)
    slots[: rows // 2] = slots[: rows // 2] // page * page  # the one before is a page before, or the row is idle
    slots[2::3] = torch.tensor([0, -1, -7], dtype=torch.int32).repeat(rows)[: len(slots[2::3])]
    table[slots <= 0] = 0
    return keys, values, table.to(device), slots.to(device)


def some_factors(n, rows, dtype=torch.float32, device="cpu"):
    """Factors for keys and for values, a third of them exactly 0 and some exactly 1."""
    factors = torch.rand(2, n, rows, dtype=dtype)
    return tuple(torch.where(factors < 0.33, 0, torch.where(factors > 0.9, 1, factors)).to(device))


def naive_smooth(cache, table, slots, factors, first_layer):
    """One of keys and values, smoothed in float64; a new tensor."""
    smoothed = cache.double().clone()
    size = cache.shape[3]
    for n, of_layer in enumerate(factors.tolist()):
        for row, factor in enumerate(of_layer):
            now = int(slots[row])
            if now > 0 and factor != 0:
                pages = cache[first_layer + n].double(), table[row].tolist()
                new, before = (pages[0][pages[1][at // size], :, at % size] for at in (now, now - 1))
                smoothed[first_layer + n, pages[1][now // size], :, now % size] = (1 - factor) * new + factor * before
    return smoothed


def bits(tensor):
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()]).clone()


def check(smooth, *, rows, layers, kv_heads, head_dim, dtype, factors, seed=0, permuted=False, device="cpu", page=4):
    """Compare with the formula; all but the newest positions with a factor keep their bits, whatever these are."""
    keys, values, table, slots = some_pages(rows, layers, kv_heads, head_dim, page, 3, dtype, seed, device)
    first = layers - 3
    on_keys, on_values = some_factors(2, rows, factors, device)
    if permuted:  # as views of other layouts
        keys, values = (t.permute(1, 0, 3, 2, 4).contiguous().permute(1, 0, 3, 2, 4) for t in (keys, values))
        table, on_keys, on_values = (t.T.contiguous().T for t in (table, on_keys, on_values))
    keys[:, 0], values[:, 0] = torch.nan, -0.0
    expected = [naive_smooth(c, table, slots, f, first) for c, f in ((keys, on_keys), (values, on_values))]
    untouched = [e.nan_to_num(7) == c.double().nan_to_num(7) for e, c in zip(expected, (keys, values), strict=True)]
    before = bits(keys), bits(values)
    smooth(keys, values, table, slots, on_keys, on_values, first)
    for cache, right, same, old in zip((keys, values), expected, untouched, before, strict=True):
        assert torch.equal(bits(cache)[same], old[same])
        tight = ROUNDING[dtype]
        torch.testing.assert_close(cache.double(), right, atol=tight, rtol=tight, equal_nan=True)


def check_zero(smooth, strange):
    """Factors of 0 keep every bit of ``strange`` numbers, which a sum would change."""
    keys, values, table, slots = some_pages(4, 2, 1, 8)
    keys[:], values[:] = strange, strange
    before = bits(keys), bits(values)
    smooth(keys, values, table, slots, torch.zeros(2, 4), torch.zeros(2, 4), 0)
    assert torch.equal(bits(keys), before[0])
    assert torch.equal(bits(values), before[1])
