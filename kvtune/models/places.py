"""Where in the picture visual tokens are: a grid, or a whole picture with tiles of it."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_places(rows: int, columns: int) -> Tensor:
    """Centres of a grid over the whole picture, row by row: [rows * columns, 2], to the right and down, in [0, 1]."""
    down, right = torch.meshgrid(_centres(rows), _centres(columns), indexing="ij")
    return torch.stack([right, down], dim=-1).view(-1, 2)


def tile_places(tiles: tuple[int, int], side: int, size: tuple[int, int]) -> Tensor:
    """Centres of tokens of the tiles of a picture that was enlarged, unstretched, into the middle of a canvas of tiles.

    Parameters
    ----------
    tiles
        Rows and columns of tiles.
    side
        Tokens along a side of a tile.
    size
        Height and width of the picture, in any unit.

    Returns
    -------
    Tensor
        [tiles, side * side, 2], tile by tile and each row by row, in the picture; beyond [0, 1] on the canvas' rim.
    """
    tall, wide = tiles[0] * side, tiles[1] * side
    height, width = size
    scale = min(tall / height, wide / width)
    canvas = grid_places(tall, wide).view(tall, wide, 2)
    share = torch.tensor([width * scale / wide, height * scale / tall])
    in_picture = (canvas - 0.5) / share + 0.5
    return in_picture.view(tiles[0], side, tiles[1], side, 2).transpose(1, 2).reshape(-1, side * side, 2)


def tiles_then_whole(rows: int, columns: int, side: int) -> Tensor:
    """Places of a picture that was stretched over tiles: tile by tile, each row by row, then the whole picture.

    With fewer than two tiles there is the whole picture alone.
    """
    whole = grid_places(side, side)
    if rows * columns < 2:
        return whole
    tiles = tile_places((rows, columns), side, (rows, columns))
    return torch.cat([tiles.reshape(-1, 2), whole])


def _centres(count: int) -> Tensor:
    return (torch.arange(count) + 0.5) / count
