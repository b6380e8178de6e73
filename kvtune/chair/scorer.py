"""CHAIR of captions against the objects that are in their images."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvtune.chair.captions import caption_of
from kvtune.chair.counts import COLUMNS, CaptionCounts
from kvtune.chair.denials import denied
from kvtune.chair.ground_truth import check_ground_truth
from kvtune.chair.metrics import METRICS, Rates
from kvtune.chair.reader import CaptionReader
from kvtune.chair.spans import MentionFinder
from kvtune.chair.vocabulary import load_vocabulary
from kvtune.errors import RequestError

SCORER = f"kvtune-chair/1+{load_vocabulary().digest}"
"""Version of the scorer: that of its rules and a digest of its words. Scores of two versions are not to be mixed."""


@dataclass(frozen=True, kw_only=True)
class ChairScore(Rates):
    """CHAIR's rates over a set of captions, with their number and the version of the scorer."""

    captions: int
    scorer: str = SCORER

    def to_dict(self) -> dict[str, Any]:
        """What ``kvtune score --json`` prints of it: rates in percent, the number of captions, and what follows."""
        found = super().to_dict()
        last = {"scorer", *(name for name, metric in METRICS.items() if metric.unit != "%")}
        return dict(sorted(found.items(), key=lambda item: item[0] in last))


class ChairScorer:
    """Scores captions.

    Parameters
    ----------
    ground_truth
        Image id, or its digits, to the COCO categories that are in the image.

    Raises
    ------
    RequestError
        If an id is no image id or a name is no COCO category.

    Examples
    --------
    >>> scorer = ChairScorer({1: ["dog"]})
    >>> scorer.score([{"image_id": 1, "caption": "A dog beside a bicycle."}]).chair_i
    50.0
    """

    def __init__(self, ground_truth: Mapping[int, Collection[str]] | Mapping[str, Collection[str]]) -> None:
        self._present = check_ground_truth(ground_truth, "ground truth")
        self._reader = CaptionReader()

    def score(self, captions: Iterable[Mapping[str, Any]]) -> ChairScore:
        """Score captions.

        Parameters
        ----------
        captions
            Mappings with ``image_id`` (an int, digits or a COCO file name) and ``caption``. Two captions of one image
            count as two.

        Returns
        -------
        ChairScore
            All rates 0 for no captions.

        Raises
        ------
        RequestError
            If a caption has no id or no text, or its image has no ground truth.
        """
        counts = self.counts(captions)
        return ChairScore.of(counts.totals(), captions=len(counts))

    def counts(self, captions: Iterable[Mapping[str, Any]]) -> CaptionCounts:
        """What the rates are made of, caption by caption; arguments and errors as :meth:`score`."""
        read = self._reader.read
        image_ids, rows = [], []
        for place, caption in enumerate(captions):
            image_id, text = caption_of(caption, place)
            present = self._present_in(image_id)
            words, mentions = read(text)
            mentioned = set(mentions)
            hallucinated = sum([category not in present for category in mentions])
            correct = len(mentioned & present)
            rows.append(
                (1, hallucinated > 0, len(mentions), hallucinated, len(mentioned), correct, len(present), words)
            )
            image_ids.append(image_id)
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(COLUMNS))
        return CaptionCounts(np.array(image_ids, dtype=np.int64), table)

    def details(self, captions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What each caption mentions; arguments and errors as :meth:`score`.

        Returns
        -------
        list of dict
            For each caption ``image_id``; ``mentioned`` and ``hallucinated``, categories in order, one entry a
            mention; ``correct`` and ``missed``, categories that are in the image, each once, in order of mention and
            of the alphabet; ``words``, its tokens; ``denied``, those mentions of which the caption says that they are
            not there (:mod:`kvtune.chair.denials`), which count all the same.
        """
        found = []
        find = MentionFinder()
        for place, caption in enumerate(captions):
            image_id, text = caption_of(caption, place)
            present = self._present_in(image_id)
            words, mentions = self._reader.read(text)
            found.append(
                {
                    "image_id": image_id,
                    "mentioned": mentions,
                    "hallucinated": [category for category in mentions if category not in present],
                    "correct": [category for category in dict.fromkeys(mentions) if category in present],
                    "missed": sorted(present.difference(mentions)),
                    "words": words,
                    "denied": [category for _, _, category in denied(text, find)],
                }
            )
        return found

    def _present_in(self, image_id: int) -> frozenset[str]:
        present = self._present.get(image_id)
        if present is None:
            raise RequestError(
                f"image {image_id} has a caption but no ground truth; add its objects to the ground truth "
                f"({len(self._present)} images there) or leave its caption out"
            )
        return present
