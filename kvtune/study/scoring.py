"""Scores of stored captions, against ground truth that is kept with the study."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kvtune.chair import SCORER, CaptionCounts, ChairScorer, load_ground_truth
from kvtune.errors import RequestError
from kvtune.study.study_folder import StudyFolder


def truth_of(folder: StudyFolder) -> dict[int, frozenset[str]]:
    """Read the objects of a study's images.

    Raises
    ------
    RequestError
        If the file is missing or damaged, with the command that makes it anew.
    """
    try:
        return load_ground_truth(folder.ground_truth)
    except RequestError as error:
        raise RequestError(f"{error}; kvtune rescore {folder.argument} --coco DIR makes it anew") from None


class Scoring:
    """A CHAIR scorer with its ground truth.

    Parameters
    ----------
    ground_truth
        Image id to the COCO categories that are in the image.

    Attributes
    ----------
    version
        The scorer's version.
    identity
        Scorer version and a digest of the ground truth: scores of two identities are not to be mixed.
    """

    def __init__(self, ground_truth: Mapping[int, Collection[str]]) -> None:
        self._scorer = ChairScorer(ground_truth)
        text = json.dumps([(image_id, sorted(ground_truth[image_id])) for image_id in sorted(ground_truth)])
        self.version: str = SCORER
        self.identity = f"{self.version} {hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def score(self, captions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Score the captions of one setting.

        Returns
        -------
        dict
            ``chair_s chair_i precision recall f1`` in percent, ``mean_words``, ``images`` (captions scored) and
            ``scorer`` (its version).
        """
        found = self._scorer.score(captions).to_dict()
        return {"images" if name == "captions" else name: value for name, value in found.items()}

    def counts(self, captions: Sequence[Mapping[str, Any]]) -> CaptionCounts:
        """What the scores are made of, caption by caption."""
        return self._scorer.counts(captions)
