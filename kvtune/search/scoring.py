"""Scores of stored captions, against ground truth that is kept with the study."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvtune.errors import KvtuneError
from kvtune.files import read_json, write_text

RATES = ("chair_s", "chair_i", "precision", "recall", "f1")


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

    def __init__(self, ground_truth: Mapping[int, Iterable[str]]) -> None:
        from kvtune.chair import SCORER, ChairScorer

        self._scorer = ChairScorer(ground_truth)
        digest = hashlib.sha256(_ground_truth_text(ground_truth).encode()).hexdigest()
        self.version: str = SCORER
        self.identity = f"{self.version} {digest[:16]}"

    def score(self, captions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Score captions of one setting.

        Returns
        -------
        dict
            ``chair_s chair_i precision recall f1`` in percent, ``mean_words``, ``images`` (captions scored) and
            ``scorer`` (its version).
        """
        found = self._scorer.score(captions).to_dict()
        metrics = {name: found[name] for name in (*RATES, "mean_words")}
        return metrics | {"images": len(captions), "scorer": self.version}


def save_ground_truth(path: Path, ground_truth: Mapping[int, Iterable[str]]) -> None:
    """Keep the ground truth with the study, as ``kvtune score --ground-truth`` reads it too."""
    write_text(path, _ground_truth_text(ground_truth))


def load_ground_truth(path: Path) -> dict[int, set[str]]:
    """Read the ground truth that is kept with a study.

    Raises
    ------
    KvtuneError
        If the file is missing or is not what :func:`save_ground_truth` wrote.
    """
    data = read_json(path, "ground truth")
    try:
        return {int(image_id): {str(name) for name in names} for image_id, names in data.items()}
    except (AttributeError, TypeError, ValueError):
        raise KvtuneError(f'{path} is not a ground-truth file: {{"42": ["person", "dog"], ...}} is expected') from None


def _ground_truth_text(ground_truth: Mapping[int, Iterable[str]]) -> str:
    return json.dumps({str(image_id): sorted(ground_truth[image_id]) for image_id in sorted(ground_truth)}) + "\n"
