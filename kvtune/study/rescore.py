"""Scoring stored captions again: no model, no GPU."""

import math
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvtune.chair import save_ground_truth
from kvtune.coco import CocoFolder
from kvtune.coco.truth import coco_truth
from kvtune.statistics.front import reference_point
from kvtune.study.caption_log import captions_sha256
from kvtune.study.judged import judged_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import Manifest, ReferencePoint, check_trials, load_manifest
from kvtune.study.optuna_copy import OptunaCopy
from kvtune.study.scoring import Scoring, truth_of
from kvtune.study.storage_url import check_storage
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import switching
from kvtune.study.trials import Ledger, LedgerWriter, Trial


def scored_again(folder: StudyFolder, manifest: Manifest, ledger: Ledger, scoring: Scoring) -> dict[int | None, Trial]:
    """Every judged trial, and the baseline (None), with new scores of its stored captions, whatever they are now.

    A raced trial stays one, and is scored on the images that it was judged by.

    Raises
    ------
    LostCaptionsError
        If captions are missing or unreadable.
    """
    found: dict[int | None, Trial] = {}
    for trial in ledger.judged:
        captions = judged_captions(folder, manifest, replace(trial, captions=None))
        metrics, digest = scoring.score(captions), captions_sha256(captions)
        found[trial.number] = replace(trial, metrics=metrics, scoring=scoring.identity, captions=digest)
    return found


def switch_scores(
    folder: StudyFolder,
    manifest: Manifest,
    ledger: LedgerWriter,
    scored: Mapping[int | None, Trial],
    scoring: Scoring,
    ground_truth: Mapping[int, Collection[str]] | None,
    optuna: OptunaCopy,
) -> Manifest:
    """Put trials that were scored again, and all that follows from their scores, in the place of the old ones at once.

    A storage that is not ``study.db`` follows after that.

    Returns
    -------
    Manifest
        The new one.

    Raises
    ------
    KvtuneError
        If a file cannot be written, and nothing is changed; or a storage elsewhere fails, after the rest.
    """
    ledger.change(lambda trial: scored.get(trial.number, trial))
    manifest = with_reference_point(manifest, ledger.baseline).model_copy(update={"scorer": scoring.version})
    with switching(folder) as new:
        if ground_truth is not None:
            save_ground_truth(ground_truth, new.ground_truth)
        ledger.write(new.ledger)
        manifest.save(new.manifest)
        if optuna.is_local:
            optuna.write(new.database, ledger)
    ledger.reopen()
    if not optuna.is_local:
        optuna.rebuild(ledger)
    return manifest


def with_reference_point(manifest: Manifest, baseline: Trial) -> Manifest:
    """The manifest with the reference point that follows from the baseline's scores."""
    if baseline.point is None:
        return manifest
    chair_s, f1 = reference_point(baseline.point)
    return manifest.model_copy(update={"reference_point": ReferencePoint(chair_s=chair_s, f1=f1)})


def rescore_study(folder: StudyFolder, coco: Path | None = None, storage: str | None = None) -> int:
    """Score all captions of a study again and build its Optuna storage anew.

    Parameters
    ----------
    coco
        A COCO folder to take the ground truth from; None for the one that is kept with the study.
    storage
        URL of the Optuna storage that the study was searched with, if it was not ``study.db``.

    Returns
    -------
    int
        How many settings, the baseline included, got other scores.

    Raises
    ------
    RequestError
        If the study is in use or cannot be read, or COCO is not there.
    KvtuneError
        If captions are missing or unreadable, or a file cannot be written.
    """
    with locked(folder.path):
        manifest = load_manifest(folder)
        if storage is not None:
            check_storage(storage, folder.name, manifest.id)
        ground_truth = truth_from_coco(coco, manifest) if coco else truth_of(folder)
        scoring = Scoring(ground_truth)
        with closing(LedgerWriter(folder.ledger)) as ledger:
            check_trials(ledger, manifest)
            scored = scored_again(folder, manifest, ledger, scoring)
            changed = sum(
                _differ(ledger[number].metrics or {}, trial.metrics or {}) for number, trial in scored.items()
            )
            with closing(OptunaCopy(folder, manifest, storage)) as optuna:
                switch_scores(folder, manifest, ledger, scored, scoring, ground_truth, optuna)
    return changed


def truth_from_coco(coco: Path, manifest: Manifest) -> dict[int, set[str]]:
    """Objects in a study's images as a COCO folder has them now."""
    return coco_truth(CocoFolder(coco), [*manifest.tune.image_ids, *manifest.holdout.image_ids])


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether scores are others, by more than rounding."""
    return before.keys() != after.keys() or any(
        not math.isclose(before[name], value, rel_tol=1e-12) if isinstance(value, float) else before[name] != value
        for name, value in after.items()
    )
