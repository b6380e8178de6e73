"""Attention of one new token a row over its image's prompt, which all rows of the image share, and over its own text.

Scores over the prompt are one matrix product a group of rows, those over the text one a row; one softmax joins them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvtune.captioning.cached import Cached, by_group, by_row
from kvtune.methods.smoothing import row_entropy


def attend(query: Tensor, prefix: Cached, suffix: Cached, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    """Attention of ``query`` over what its group has cached and what its row has.

    Parameters
    ----------
    query
        [rows, kv_heads, share, head_dim], scaled; ``share`` heads read the same keys and values.
    prefix
        Of groups; ``rows / groups`` rows that stand side by side are one group.
    suffix
        Of rows.

    Returns
    -------
    tuple
        The output, [rows, kv_heads, share, head_dim], and the entropy of each row's weights, [rows], natural log, mean
        over heads; None unless ``with_entropy``.
    """
    rows, groups, width = len(query), len(prefix.keys), prefix.keys.shape[2]
    scores = torch.cat([by_row(_scores(by_group(query, groups), prefix), rows), _scores(query, suffix)], dim=-1)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scores -= scores.amax(-1, keepdim=True)
    terms = scores.exp()
    total = terms.sum(-1, keepdim=True)

    weights = terms.to(query.dtype)  # but for the division by their sum, which the output makes up for
    output = by_row(torch.matmul(by_group(weights[..., :width], groups), prefix.values), rows)
    output = (output + torch.matmul(weights[..., width:], suffix.values)) / total.to(query.dtype)
    if not with_entropy:
        return output, None
    if terms.dtype == torch.float64:  # where the entropy's epsilon shows
        return output, row_entropy(terms / total)
    below = scores.mul_(terms).sum(-1, keepdim=True)
    return output, total.log().addcdiv_(below, total, value=-1).mean((1, 2, 3))


def _scores(query: Tensor, cached: Cached) -> Tensor:
    scores = torch.matmul(query, cached.keys.transpose(-1, -2))
    return scores if cached.hidden is None else scores.add_(cached.hidden)
