"""Numbers that others report, to stand beside one's own: ``reported.json`` with where each was seen."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_SECOND_HAND = ("summary", "issue")


@dataclass(frozen=True)
class Reported:
    """One row that is reported.

    Attributes
    ----------
    scores
        Rates in percent, and ``mean_words``, by name; those that are known.
    source
        What reports them.
    seen
        Where the numbers were read: in ``source`` itself or in something about it.
    first_hand
        False for numbers from a summary that were not compared with the paper, and from a user's report.
    same_images
        True for captions of opera500 itself, False for other images.
    """

    scores: Mapping[str, float]
    source: str
    seen: str
    first_hand: bool
    same_images: bool


@cache
def reported_table() -> dict[str, Any]:
    """``reported.json``: the paper's table 1 (``points``) and 4 (``ablations``), ``reproductions`` of other methods by
    others, ``anchors`` of OPERA on opera500 and ``other_anchors`` on other images."""
    table: dict[str, Any] = json.loads(
        resources.files("kvtune.report.data").joinpath("reported.json").read_text(encoding="utf-8")
    )
    return table


def reported(model: str, setting: str) -> Reported | None:
    """What is reported of a row of the paper's tables; None where nothing is known.

    Parameters
    ----------
    model
        One of the paper's models by its short name.
    setting
        The row; see :data:`kvtune.reproduce.paper_settings.TABLES`.
    """
    table = reported_table()
    parts = ("ablations", "reproductions", "anchors", "other_anchors")
    for part in (table, *(table[name] for name in parts)):
        for row in part["points"]:
            if (row["model"], row["setting"]) == (model, setting):
                scores = {name: value for name, value in row.items() if isinstance(value, float)}
                seen = row["seen"]
                same_images = part is table["anchors"]
                return Reported(scores, part["source"], table["seen"][seen], seen not in _SECOND_HAND, same_images)
    return None
