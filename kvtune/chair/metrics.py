"""The metrics: what each is called, in which unit, which way is better, and how it follows from sums of counts.

This table is the only list of them: scores, intervals, documents, frames, tables, pictures and pages go through it.
How to add one: ``docs/add-a-metric.md``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtune.chair.counts import COLUMNS

Sums = Mapping[str, NDArray[np.float64]]
"""Sums of counts by the name of the column, see :data:`kvtune.chair.COLUMNS`; all of one shape."""


@dataclass(frozen=True)
class Metric:
    """One number that captions are judged by.

    Attributes
    ----------
    label
        Its name in tables and pictures.
    meaning
        What it is of, in a few words that follow the number.
    of
        Sums of counts to the metric; an empty denominator gives 0.
    unit
        ``%``, from 0 to 100, or of what it counts: ``words``.
    better
        Which way is better; None where neither is.
    objective
        Whether the front is drawn by it. There are two of these: one falls, one rises.
    share_of
        The column of which it is the share of captions, where it is one, so that Wilson's interval and McNemar's test
        are its own; other metrics have the bootstrap's.
    """

    label: str
    meaning: str
    of: Callable[[Sums], NDArray[np.float64]]
    unit: str = "%"
    better: Literal["lower", "higher"] | None = None
    objective: bool = False
    share_of: str | None = None


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """``part / whole``, 0 where there is no whole; all of one shape."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _precision(sums: Sums) -> NDArray[np.float64]:
    return 100 * ratio(sums["correct"], sums["mentioned"])


def _recall(sums: Sums) -> NDArray[np.float64]:
    return 100 * ratio(sums["correct"], sums["present"])


def _f1(sums: Sums) -> NDArray[np.float64]:
    # One division of whole numbers: equal figures of unequal counts are then equal to the last bit.
    return 100 * ratio(2 * sums["correct"], sums["mentioned"] + sums["present"])


METRICS: dict[str, Metric] = {
    "chair_s": Metric(
        "CHAIR_S",
        "% of captions with a hallucinated object",
        lambda sums: 100 * ratio(sums["hallucinated_captions"], sums["captions"]),
        better="lower",
        objective=True,
        share_of="hallucinated_captions",
    ),
    "chair_i": Metric(
        "CHAIR_I",
        "% of mentions that are hallucinated",
        lambda sums: 100 * ratio(sums["hallucinated_mentions"], sums["mentions"]),
        better="lower",
    ),
    "precision": Metric("precision", "% of the objects mentioned", _precision, better="higher"),
    "recall": Metric("recall", "% of the objects in these images", _recall, better="higher"),
    "f1": Metric("F1", "their harmonic mean", _f1, better="higher", objective=True),
    "mean_words": Metric("words", "tokens a caption", lambda sums: ratio(sums["words"], sums["captions"]), "words"),
}
"""By the names that documents and frames use, in the order in which they are shown.

CHAIR_S and CHAIR_I as Rohrbach et al. (2018, EMNLP, section 3); precision, recall and F1 over distinct categories of
each caption, summed over the captions.
"""

OBJECTIVES = tuple(name for name, metric in METRICS.items() if metric.objective)
"""The metrics of the front."""


def rates(totals: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Every metric from summed counts.

    Parameters
    ----------
    totals
        Shape ``[..., len(COLUMNS)]``: sums of rows of :attr:`kvtune.chair.CaptionCounts.table`, whole or weighted.

    Returns
    -------
    dict
        By the names of :data:`METRICS`, each of shape ``[...]``. An empty denominator gives 0.
    """
    sums = dict(zip(COLUMNS, np.moveaxis(np.asarray(totals, dtype=np.float64), -1, 0), strict=True))
    return {name: metric.of(sums) for name, metric in METRICS.items()}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Every metric of one set of captions.

    Attributes
    ----------
    chair_s
        Captions with at least one hallucinated mention, of all captions; percent, 0 to 100, as the others.
    chair_i
        Hallucinated mentions, of all mentions.
    precision, recall, f1
        Over distinct categories of each caption, summed: correct of mentioned, correct of those in the captioned
        images, and their harmonic mean.
    mean_words
        Tokens a caption, punctuation included.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    chair_s: float
    chair_i: float
    precision: float
    recall: float
    f1: float
    mean_words: float

    @classmethod
    def of(cls, totals: ArrayLike, **further: Any) -> Self:
        """The metrics of summed counts, shape ``[len(COLUMNS)]``, and what else the class has."""
        return cls(**{name: float(value) for name, value in rates(totals).items()}, **further)

    def __getitem__(self, name: str) -> float:
        """A metric by its name in :data:`METRICS`."""
        return float(getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """As documents have it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Scores(Rates):
    """A setting's metrics as a study keeps them.

    Attributes
    ----------
    images
        How many images were captioned, once each.
    scorer
        Version of the scorer; None where nobody wrote it down.
    """

    images: int
    scorer: str | None = None
