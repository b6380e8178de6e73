"""What every caption of a setting came to: counts for resampling, and marks of degeneration. Scored once, then kept."""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.array_files import read_arrays
from kvtune.chair import COLUMNS
from kvtune.chair.sentences import split_sentences
from kvtune.errors import KvtuneError
from kvtune.files import write_bytes
from kvtune.study.scoring import Scoring

DISTINCT = (1, 2, 3)
"""The n of distinct-n."""

_WORD = re.compile(r"\w+")

Caption = Mapping[str, Any]
"""A caption line."""


@dataclass(frozen=True)
class Outcome:
    """One setting's captions, in the order of the images.

    Attributes
    ----------
    counts
        Shape ``[images, len(COLUMNS)]``; see :data:`kvtune.chair.COLUMNS`.
    at_limit
        Shape ``[images]``; whether the caption hit the token limit.
    distinct
        Shape ``[images, 3]``; see :func:`distinct`.
    """

    counts: NDArray[np.int64]
    at_limit: NDArray[np.bool_]
    distinct: NDArray[np.float64]


class Outcomes:
    """Scores captions of a study, and remembers what it has scored in a file.

    The file is a cache: it may be deleted, is left out where it cannot be written, and is keyed by captions, scorer and
    ground truth, so that it is never stale.
    """

    def __init__(self, path: Path, scoring: Scoring) -> None:
        self._path, self._scoring = path, scoring
        self._kept = _load(path)
        self._used: dict[str, NDArray[Any]] = {}

    def of(self, captions: Sequence[Caption]) -> Outcome:
        """The outcome of these captions.

        Raises
        ------
        RequestError
            If an image has no ground truth.
        """
        key = self._key("outcome", captions)
        found = self._kept.get(key)
        if found is None:
            limit = [[line["finish_reason"] == "length"] for line in captions]
            repetition = [[distinct(line["caption"], n) for n in DISTINCT] for line in captions]
            found = np.hstack([self._scoring.counts(captions).table, limit, repetition])
        self._used[key] = found
        columns = found.shape[1] - 1 - len(DISTINCT)
        return Outcome(found[:, :columns].astype(np.int64), found[:, columns] > 0, found[:, columns + 1 :])

    def of_cuts(self, captions: Sequence[Caption]) -> NDArray[np.int64]:
        """Counts of the captions cut to their first 1, 2, 3, ... sentences, until none is cut any more.

        Returns
        -------
        NDArray
            Shape ``[cuts, images, len(COLUMNS)]``.
        """
        key = self._key("cuts", captions)
        found = self._kept.get(key)
        if found is None:
            sentences = [split_sentences(line["caption"].lower()) for line in captions]
            longest = max((len(each) for each in sentences), default=0)
            found = np.stack(
                [
                    self._scoring.counts(
                        [
                            {"image_id": line["image_id"], "caption": cut(each, kept)}
                            for line, each in zip(captions, sentences, strict=True)
                        ]
                    ).table
                    for kept in range(1, max(1, longest) + 1)
                ]
            )
        self._used[key] = found
        return found.astype(np.int64)

    def save(self) -> None:
        """Keep what was asked for; what was not is forgotten."""
        if self._used.keys() == self._kept.keys():
            return
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **self._used)
        try:
            write_bytes(self._path, data.getvalue())
        except KvtuneError:
            return  # somebody else's study, or a full disk: reading it must work all the same

    def _key(self, kind: str, captions: Sequence[Caption]) -> str:
        digest = hashlib.sha256(f"{kind} {self._scoring.identity} {COLUMNS}\n".encode())
        for line in captions:
            digest.update(json.dumps([line["image_id"], line["caption"], line["finish_reason"]]).encode())
        return digest.hexdigest()


def cut(sentences: Sequence[str], kept: int) -> str:
    """The first sentences of a caption as one text."""
    return " ".join(sentences[:kept])


def distinct(text: str, n: int) -> float:
    """Different n-grams of words, of all n-grams of the text; 1 for a text of fewer than n words."""
    words = _WORD.findall(text.lower())
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path)
    except (OSError, ValueError):
        return {}
