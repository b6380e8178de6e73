"""How many pages the captions that are being written will want at once, by how captions have grown so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PRIOR = 8.0
"""Captions that the expectation before the first ones is worth."""

_GOES_ON = 0.3
"""Share of captions that are expected to go on to another page beyond the usual length."""


class PageDemand:
    """The pages that captions hold, and how many of them go on from each to the next.

    A caption on its n-th page goes on to another with a chance that is counted from those that did and those that ended
    there, so that captions that are still being written distort nothing. Captions begun together want many pages
    together, and captions of all ages want what they hold on average: what counts is the highest of the coming demand.

    Parameters
    ----------
    most
        Pages of the longest caption.
    usual
        Pages that captions are expected to reach before any has ended.
    """

    def __init__(self, most: int, usual: int) -> None:
        self._most = most
        goes_on = np.where(np.arange(1, most + 1) < usual, 1.0, _GOES_ON)
        self._gone_on = _PRIOR * goes_on
        self._seen = np.full(most, _PRIOR)
        self._coming: np.ndarray | None = None

    def goes_on(self, page: int) -> None:
        """A caption needs another page after its ``page``-th, 1 for the first."""
        self._gone_on[page - 1] += 1
        self._seen[page - 1] += 1
        self._coming = None

    def ends(self, page: int) -> None:
        """A caption ended on its ``page``-th page."""
        self._seen[page - 1] += 1
        self._coming = None

    def coming(self) -> np.ndarray:
        """Expected pages of a caption that holds n + 1 now, when so many more pages have passed: [pages ahead, n]."""
        if self._coming is None:
            chance = self._gone_on / self._seen
            chance[-1] = 0.0  # there the limit ends it
            coming = np.zeros((self._most, self._most))
            for held in range(self._most):
                going = np.concatenate([[1.0], np.cumprod(chance[held : self._most - 1])])
                coming[: len(going), held] = going * np.arange(held + 1, self._most + 1)
            self._coming = coming
        return self._coming

    def of(self, held: Sequence[int]) -> np.ndarray:
        """Pages that captions which hold so many each are expected to want, [pages ahead]; its peak is what counts."""
        counts = np.bincount(np.maximum(held, 1) - 1, minlength=self._most) if len(held) else np.zeros(self._most)
        return self.coming() @ counts
