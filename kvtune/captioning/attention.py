"""Attention of one new token a row over its image's prompt, which all rows of the image share, and over its own text.

Scores over the prompt are one matrix product a group of rows, those over the text one a row; one softmax joins them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from kvtune.methods.acting import Acting
from kvtune.methods.entropy import row_entropy
from kvtune.methods.scaled_products import scaled_products


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


def attend(
    query: Tensor,
    prefix: Cached,
    suffix: Cached,
    scaling: float,
    with_entropy: bool,
    layer: int = 0,
    acting: Sequence[Acting] = (),
) -> tuple[Tensor, Tensor | None]:
    """Attention of ``query`` over what its group has cached and what its row has.

    Parameters
    ----------
    query
        [rows, kv_heads, share, head_dim]; ``share`` heads read the same keys and values.
    prefix
        Of groups; ``rows / groups`` rows that stand side by side are one group.
    suffix
        Of rows.
    scaling
        What scores are multiplied with.
    layer
        The layer that this is.
    acting
        Methods that change scores or weights, with the rows that have them.

    Returns
    -------
    tuple
        The output, [rows, kv_heads, share, head_dim], and the entropy of each row's weights, [rows], natural log, mean
        over heads; None unless ``with_entropy``.
    """
    rows, groups, width = len(query), len(prefix.keys), prefix.keys.shape[2]
    on_prefix = _by_row(scaled_products(_by_group(query, groups), prefix.keys, scaling), rows)
    scores = torch.cat([on_prefix, scaled_products(query, suffix.keys, scaling)], dim=-1)
    for cached, part in ((prefix, scores[..., :width]), (suffix, scores[..., width:])):
        if cached.hidden is not None:
            part += cached.hidden
    by_methods = [(one.index, *_acted(one, layer, query, scores, scaling)) for one in acting]
    if by_methods and by_methods[0][0] is None:
        _, weights, entropy = by_methods[0]
        if with_entropy and entropy is None:  # rows elsewhere want theirs
            entropy = weights.new_zeros(rows)
        return _summed(weights.to(query.dtype), prefix, suffix), entropy

    scores -= scores.amax(-1, keepdim=True)
    terms = scores.exp()
    total = terms.sum(-1, keepdim=True)
    entropy = None
    if with_entropy and terms.dtype == torch.float64:  # where the entropy's epsilon shows
        entropy = row_entropy(terms / total)
    elif with_entropy:
        below = scores.mul_(terms).sum(-1, keepdim=True)
        entropy = total.log().addcdiv_(below, total, value=-1).mean((1, 2, 3))
    for index, weights, own_entropy in by_methods:
        assert index is not None
        terms[index], total[index] = weights, 1.0
        if entropy is not None and own_entropy is not None:
            entropy[index] = own_entropy
    if terms.dtype == query.dtype:
        # Weights but for the division by their sum, which the output makes up for.
        return _summed(terms, prefix, suffix) / total, entropy
    # Of a flat row's thousands of terms, each near 1, float16 does not hold the sum of values.
    return _summed((terms / total).to(query.dtype), prefix, suffix), entropy


def _summed(weights: Tensor, prefix: Cached, suffix: Cached) -> Tensor:
    """Values summed with weights, [rows, kv_heads, share, positions of both]."""
    rows, groups, width = len(weights), len(prefix.keys), prefix.keys.shape[2]
    output = _by_row(torch.matmul(_by_group(weights[..., :width], groups), prefix.values), rows)
    return output + torch.matmul(weights[..., width:], suffix.values)


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """[rows, kv_heads, share, n] as [groups, kv_heads, rows a group * share, n]: one product a group."""
    _, kv_heads, share, size = rows.shape
    grouped = rows.view(groups, -1, kv_heads, share, size).transpose(1, 2)
    return grouped.reshape(groups, kv_heads, -1, size)


def _by_row(grouped: Tensor, rows: int) -> Tensor:
    """The way back from :func:`_by_group`."""
    groups, kv_heads, _, size = grouped.shape
    lanes = rows // groups
    ungrouped = grouped.view(groups, kv_heads, lanes, -1, size).transpose(1, 2)
    return ungrouped.reshape(rows, kv_heads, -1, size)


def _acted(acting: Acting, layer: int, query: Tensor, scores: Tensor, scaling: float) -> tuple[Tensor, Tensor | None]:
    """Weights and entropy of the rows on which some methods act, the weights shaped as the rows' scores."""
    if acting.index is not None:
        query, scores = query[acting.index], scores[acting.index]
    weights, entropy = acting.attend(layer, query.flatten(1, 2), scores.flatten(1, 2), scaling)
    return weights.view_as(scores), entropy
