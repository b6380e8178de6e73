"""Counts of each caption, of whose sums the metrics are made (:mod:`kvtune.chair.metrics`)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
number of categories in the image; ``words`` the tokens after joining pairs, without the seats of a toilet (OPERA's
script counts these, 0.004 tokens more a caption of LLaVA-1.5).
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

    def column(self, name: str) -> NDArray[np.int64]:
        """One column of the table by its name in :data:`COLUMNS`, shape ``[captions]``."""
        return self.table[:, COLUMNS.index(name)]

    def totals(self) -> NDArray[np.int64]:
        """Sums of the columns, shape ``[len(COLUMNS)]``; what :func:`kvtune.chair.rates` takes."""
        return self.table.sum(axis=0)
