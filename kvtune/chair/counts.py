"""Counts of each caption, and CHAIR's rates from sums of them: the one place where a rate is computed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLUMNS = (
    "captions",
    "hallucinated_captions",
    "mentions",
    "hallucinated_mentions",
    "mentioned",
    "correct",
    "present",
    "words",
)
"""What is counted for each caption.

``captions`` is 1; ``hallucinated_captions`` 1 if at least one mention is hallucinated; ``mentions`` and
``hallucinated_mentions`` count every mention, ``mentioned`` and ``correct`` distinct categories; ``present`` is the
number of categories in the image; ``words`` the tokens after joining pairs.
"""


@dataclass(frozen=True)
class CaptionCounts:
    """Counts of captions, one row a caption.

    Sums of rows give the rates of any part of the captions, so resampling needs no caption a second time::

        draws = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=1000)
        chair_s = rates(draws @ counts.table)["chair_s"]        # 1000 bootstrap replicates

    Attributes
    ----------
    image_ids
        Shape ``[captions]``; the image of each caption.
    table
        Shape ``[captions, len(COLUMNS)]``, integers; columns as in :data:`COLUMNS`.
    """

    image_ids: NDArray[np.int64]
    table: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.table)

    def __add__(self, other: "CaptionCounts") -> "CaptionCounts":
        """Both sets of captions, one after the other."""
        return CaptionCounts(
            np.concatenate([self.image_ids, other.image_ids]), np.concatenate([self.table, other.table])
        )

    def column(self, name: str) -> NDArray[np.int64]:
        """One column of the table by its name in :data:`COLUMNS`, shape ``[captions]``."""
        return self.table[:, COLUMNS.index(name)]

    def totals(self) -> NDArray[np.int64]:
        """Sums of the columns, shape ``[len(COLUMNS)]``; what :func:`rates` takes."""
        return self.table.sum(axis=0)


def rates(totals: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """CHAIR's rates from summed counts.

    Parameters
    ----------
    totals
        Shape ``[..., len(COLUMNS)]``: sums of rows of :attr:`CaptionCounts.table`, whole or weighted.

    Returns
    -------
    dict
        ``chair_s`` and ``chair_i`` (Rohrbach et al. 2018, section 3), set-level ``precision``, ``recall`` and ``f1``
        in percent, 0 to 100, and ``mean_words``; each of shape ``[...]``. An empty denominator gives 0.
    """
    sums = np.asarray(totals, dtype=np.float64)
    captions, hallucinated_captions, mentions, hallucinated_mentions, mentioned, correct, present, words = np.moveaxis(
        sums, -1, 0
    )
    precision = 100 * _ratio(correct, mentioned)
    recall = 100 * _ratio(correct, present)
    return {
        "chair_s": 100 * _ratio(hallucinated_captions, captions),
        "chair_i": 100 * _ratio(hallucinated_mentions, mentions),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "mean_words": _ratio(words, captions),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
