"""Scoring stored captions again: no model, no GPU."""

from collections.abc import Sequence
from dataclasses import replace

from kvtune.errors import KvtuneError
from kvtune.search.captions import read_captions
from kvtune.search.front import reference_point
from kvtune.search.layout import StudyFolder
from kvtune.search.ledger import Ledger, Trial
from kvtune.search.manifest import Manifest
from kvtune.search.scoring import Scoring


def rescore(folder: StudyFolder, image_ids: Sequence[int], ledger: Ledger, scoring: Scoring) -> int:
    """Score every complete trial and the baseline again and put the ledger in the place of the old one.

    Returns
    -------
    int
        How many settings got other scores.

    Raises
    ------
    KvtuneError
        If captions of a complete trial are missing or unreadable; nothing is changed then.
    """
    changed = 0

    def again(trial: Trial) -> Trial:
        nonlocal changed
        if trial.state != "complete":
            return trial
        metrics = scoring.score(tune_captions(folder, trial.number, image_ids))
        changed += metrics != trial.metrics
        return replace(trial, metrics=metrics, scoring=scoring.identity)

    ledger.rewrite(again)
    return changed


def tune_captions(folder: StudyFolder, number: int | None, image_ids: Sequence[int]) -> list[dict[str, object]]:
    """The stored captions of a complete trial (None: the baseline) in the order of the tune images.

    Raises
    ------
    KvtuneError
        If one is missing or the file cannot be read.
    """
    path = folder.trial_captions(number)
    captions = read_captions(path)
    missing = [image_id for image_id in image_ids if image_id not in captions]
    if missing:
        raise KvtuneError(f"{path} has no caption of image {missing[0]} ({len(missing)} missing); restore the file")
    return [captions[image_id] for image_id in image_ids]


def with_reference_point(manifest: Manifest, baseline: Trial) -> Manifest:
    """The manifest with the reference point that follows from the baseline's scores."""
    if baseline.point is None:
        return manifest
    chair_s, f1 = reference_point(baseline.point)
    return manifest.model_copy(update={"reference_point": {"chair_s": chair_s, "f1": f1}})
