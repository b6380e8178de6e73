"""Attention over what is cached as the formulas say it, row by row in float64, and situations to try it on."""

import torch

from kvtune.captioning.attention import Cached
from kvtune.captioning.paged_attention import Layout
from kvtune.captioning.pages import PAGE


def some_cached(groups, lanes, kv_heads, longest, size, dtype=torch.float32):
    """Random keys and values of groups, a slice of a longer buffer as the grid hands them over, and how many of them
    each row of a group sees."""
    keys, values = (torch.randn(groups, kv_heads, longest + 9, size).to(dtype) for _ in range(2))
    lengths = torch.randint(1, longest + 1, (groups * lanes,))
    missing = (torch.arange(longest) >= lengths[:, None])[:, None, None].to(dtype)
    return Cached(keys[:, :, :longest], values[:, :, :longest], missing * (torch.finfo(dtype).min / 2)), lengths


def naive_attention(query, keys, values, scaling=1.0):
    """One row: ``query`` [kv_heads, share, size] over ``keys`` and ``values``, a [positions, size] each a head.

    Returns the output and the entropy of the weights, natural log, mean over heads.
    """
    outputs, entropies = [], []
    for head, of_head in enumerate(query.double()):
        for one in of_head:
            weights = torch.softmax(keys[head].double() @ one * scaling, 0)
            entropies.append(-(weights * (weights + 1e-10).log()).sum())
            outputs.append(weights @ values[head].double())
    return torch.stack(outputs).view(query.shape), torch.stack(entropies).mean()


def paged_situation(rows, images, kv_heads, share, size, dtype, prompt=70, text=60, idle=0.2, lanes=16, device="cpu"):
    """Random queries and pages in a random order, some rows idle: the arguments of paged attention, and who is live.

    Written without the grid's own bookkeeping. The first row is live.
    """
    prompt_pages, text_pages = -(-prompt // PAGE), -(-text // PAGE)
    count = images * prompt_pages + rows * text_pages + 1
    order = torch.randperm(count - 1) + 1
    prompt_table = order[: images * prompt_pages].view(images, prompt_pages)
    table = order[images * prompt_pages :].view(rows, text_pages).clone()
    newest = torch.randint(text, (rows,))
    live = torch.rand(rows) >= idle
    live[0] = True
    newest[~live], table[~live] = -1, 0
    image_of = torch.randint(images, (rows,))
    tiles, tile_images, lanes_of_rows = [], [], torch.zeros(rows, dtype=torch.int64)
    for image in range(images):
        mine = [row for row in range(rows) if live[row] and image_of[row] == image]
        for first in range(0, len(mine), lanes):
            for lane, row in enumerate(mine[first : first + lanes]):
                lanes_of_rows[row] = len(tiles) * lanes + lane
            tiles.append((mine[first : first + lanes] + [-1] * lanes)[:lanes])
            tile_images.append(image)
    tiles.append([-1] * lanes)  # a tile in which nobody stands
    tile_images.append(0)
    tile_lengths = torch.randint(1, prompt + 1, (len(tiles),))
    of_tiles = (torch.tensor(tiles), torch.tensor(tile_images), tile_lengths)
    whole = (newest, table, *of_tiles, lanes_of_rows, prompt_table)
    layout = Layout(*(tensor.to(device, torch.int32) for tensor in whole))

    def numbers(*shape):
        return torch.randn(shape, device=device).to(dtype)

    query, key, value = (
        numbers(rows, kv_heads, share, size),
        numbers(rows, kv_heads, size),
        numbers(rows, kv_heads, size),
    )
    keys, values = numbers(count, kv_heads, PAGE, size), numbers(count, kv_heads, PAGE, size)
    return (query, key, value, keys, values, layout), image_of, live


def read_positions(layout, pages):
    """[pages, PAGE] bool: where tiles find their prompts, and rows their texts but for the newest token."""
    read = torch.zeros(pages, PAGE, dtype=torch.bool)

    def of(table, length):
        for position in range(length):
            read[int(table[position // PAGE]), position % PAGE] = True

    for image, length in zip(layout.tile_images, layout.tile_lengths, strict=True):
        of(layout.prompt_table[int(image)], int(length))
    for table, newest in zip(layout.table, layout.newest, strict=True):
        of(table, max(0, int(newest)))
    return read


def naive_paged(arguments, image_of, row, scaling):
    """What :func:`kvtune.captioning.paged_attention.attend` is to give for one live row, and the row's text then."""
    query, key, value, keys, values, layout = arguments
    image, newest = int(image_of[row]), int(layout.newest[row])

    def positions(cache, table, length):
        return torch.stack([cache[int(table[n // PAGE]), :, n % PAGE] for n in range(length)])

    both = []
    for cache, new in ((keys, key), (values, value)):
        tile = int(layout.lanes_of_rows[row]) // layout.tiles.shape[1]
        prompt = positions(cache, layout.prompt_table[image], int(layout.tile_lengths[tile]))
        before = [positions(cache, layout.table[row], newest)] if newest else []
        text = torch.cat([*before, new[row][None]])
        both.append(torch.cat([prompt, text]).transpose(0, 1))
    return naive_attention(query[row], *both, scaling)


def relative_error(got, expected):
    """Distance in the Euclidean norm over the norm of what is expected."""
    return float((got.double().cpu() - expected.double().cpu()).norm() / expected.double().norm())
