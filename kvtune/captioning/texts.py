"""What each row of a grid has written of the caption that it is at, and how far it may go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Texts:
    """Texts of ``rows`` captions of at most ``most`` tokens.

    Attributes
    ----------
    lengths
        [rows], tokens written.
    turns
        [rows], captions that each row has begun.
    """

    def __init__(self, rows: int, most: int) -> None:
        self._ids = np.zeros((rows, most), dtype=int)
        self._limits = np.zeros(rows, dtype=int)
        self.lengths = np.zeros(rows, dtype=int)
        self.turns = np.zeros(rows, dtype=int)

    def begin(self, rows: Sequence[int], limits: Sequence[int]) -> None:
        """Each of ``rows`` begins a caption of at most so many tokens."""
        self.lengths[rows] = 0
        self.turns[rows] += 1
        self._limits[rows] = limits

    def add(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """One token more of each of ``rows``."""
        self._ids[rows, self.lengths[rows]] = tokens
        self.lengths[rows] += 1

    def at_limit(self, rows: np.ndarray) -> np.ndarray:
        """Which of ``rows`` may not go on, bool."""
        return self.lengths[rows] == self._limits[rows]

    def of(self, row: int) -> list[int]:
        """The tokens that a row has written."""
        ids: list[int] = self._ids[row, : self.lengths[row]].tolist()
        return ids

    def move(self, order: np.ndarray) -> None:
        """Row ``i`` becomes what row ``order[i]`` was; there may be fewer then."""
        self._ids, self._limits = self._ids[order], self._limits[order]
        self.lengths, self.turns = self.lengths[order], self.turns[order]
