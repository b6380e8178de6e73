"""Cached keys and values, and the two ways to lay out rows: by the group that shares a prompt, and one by one."""

from __future__ import annotations

import dataclasses

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Cached:
    """Keys and values of some positions, for ``n`` groups or rows.

    Attributes
    ----------
    keys, values
        [n, kv_heads, positions, head_dim].
    hidden
        What is added to the scores of positions that a row does not see, [rows, 1, 1, positions]; None if all see all.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor | None


def by_group(rows: Tensor, groups: int) -> Tensor:
    """[rows, kv_heads, share, n] as [groups, kv_heads, rows a group * share, n]: one product a group."""
    _, kv_heads, share, size = rows.shape
    grouped = rows.view(groups, -1, kv_heads, share, size).transpose(1, 2)
    return grouped.reshape(groups, kv_heads, -1, size)


def by_row(grouped: Tensor, rows: int) -> Tensor:
    """The way back from :func:`by_group`."""
    groups, kv_heads, _, size = grouped.shape
    lanes = rows // groups
    ungrouped = grouped.view(groups, kv_heads, lanes, -1, size).transpose(1, 2)
    return ungrouped.reshape(rows, kv_heads, -1, size)
