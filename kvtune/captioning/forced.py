"""Prompt tokens that rows run themselves before they write, because a method acts on them."""

from __future__ import annotations

import numpy as np

NOT_FORCED = -1
"""In place of a token where a row is not forced."""


class ForcedTokens:
    """For each row the tokens that it is yet to be fed, whatever the model would choose."""

    def __init__(self, rows: int) -> None:
        self._ids = np.zeros((rows, 1), dtype=np.int64)
        self._left = np.zeros(rows, dtype=np.int64)
        """Tokens to come; the last of a row's ids is the last to come."""

    def start(self, row: int, token_ids: tuple[int, ...]) -> None:
        """Let ``row`` be fed these tokens; none leaves it free."""
        missing = len(token_ids) - self._ids.shape[1]
        if missing > 0:
            self._ids = np.pad(self._ids, ((0, 0), (missing, 0)))
        self._left[row] = len(token_ids)
        if token_ids:
            self._ids[row, -len(token_ids) :] = token_ids

    def next(self, rows: np.ndarray) -> np.ndarray:
        """What each of ``rows`` is fed next, :data:`NOT_FORCED` for one that is free."""
        left = self._left[rows]
        return np.where(left > 0, self._ids[rows, -np.maximum(left, 1)], NOT_FORCED)

    def to_come(self, rows: np.ndarray) -> np.ndarray:
        """Prompt tokens that come after the one that each of ``rows`` is fed next; -1 for one that is free."""
        return self._left[rows] - 1

    def writing(self, rows: np.ndarray) -> np.ndarray:
        """Those of ``rows`` whose next step gives a token of the caption: not if more of the prompt is to come."""
        return rows[self._left[rows] <= 1]

    def advance(self, rows: np.ndarray) -> None:
        """``rows`` have been fed their next token."""
        self._left[rows] = np.maximum(self._left[rows] - 1, 0)

    def move(self, order: np.ndarray) -> None:
        """Row ``i`` becomes what row ``order[i]`` was."""
        self._ids, self._left = self._ids[order], self._left[order]
