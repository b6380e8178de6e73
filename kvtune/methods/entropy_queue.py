"""The FIFO of recent row entropies that tells how diffuse a token's attention is among its neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class EntropyQueue:
    """One first-in-first-out queue per layer and row, each row with a length of its own.

    A row's entries stand in a ring of as many places as its length; places not yet filled hold infinity, which no
    entropy exceeds, so that they never count as smaller.
    """

    def __init__(self, n_layers: int, n_rows: int, device: Any) -> None:
        self.lengths = torch.ones(n_rows, dtype=torch.long, device=device)
        self.seen = torch.zeros_like(self.lengths)
        self.entries = torch.full((n_layers, n_rows, 1), torch.inf, device=device)

    def start(self, rows: Tensor, lengths: Tensor, longest: int) -> None:
        """Empty the queues of ``rows`` (indices) and let each keep at most ``lengths`` entries (M, at least 1).

        ``longest`` is the greatest of ``lengths``, which the host must not ask a device for.
        """
        missing = longest - self.entries.shape[2]
        if missing > 0:
            self.entries = torch.nn.functional.pad(self.entries, (0, missing), value=torch.inf)
        self.lengths[rows] = lengths
        self.seen[rows] = 0
        self.entries[:, rows] = torch.inf

    def rank(self, entropy: Tensor, layers: slice) -> Tensor:
        """Put this step's entropies in, and return the share of each queue that is strictly smaller.

        Calling it again before :meth:`advance` replaces what was put in.

        Parameters
        ----------
        entropy
            [layers, rows].
        layers
            The layers that ``entropy`` is about.

        Returns
        -------
        Tensor
            [layers, rows] in [0, 1): entries smaller than this one over entries in the queue, itself included.
        """
        if self.entries.dtype != entropy.dtype:
            self.entries = self.entries.to(entropy.dtype)
        entries = self.entries[layers]
        place = (self.seen % self.lengths)[None, :, None].expand(len(entropy), -1, 1)
        entries.scatter_(2, place, entropy[..., None])
        smaller = (entries < entropy[..., None]).sum(-1, dtype=entropy.dtype)
        return smaller / torch.minimum(self.seen + 1, self.lengths)

    def advance(self) -> None:
        """The step is over: the next entropies take the next place."""
        self.seen += 1

    def reorder(self, index: Tensor) -> None:
        """Row ``i`` becomes what row ``index[i]`` was."""
        self.lengths, self.seen = moved(self.lengths, index), moved(self.seen, index)
        self.entries = moved(self.entries, index, axis=1)


def moved(tensor: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    """``tensor`` with its rows in the order of ``index``: in place if they stay as many, as a CUDA graph needs it."""
    taken = tensor.index_select(axis, index)
    return tensor.copy_(taken) if taken.shape == tensor.shape else taken
