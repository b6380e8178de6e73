"""What a study found, read from its folder; imports neither torch nor Optuna."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kvtune.search.captions import count_captions
from kvtune.search.front import front, hypervolume
from kvtune.search.held_out import current_validation
from kvtune.search.layout import StudyFolder
from kvtune.search.ledger import Ledger, Trial
from kvtune.search.manifest import Manifest, load_manifest
from kvtune.search.summary import StudySummary, TrialSummary
from kvtune.search.uncertainty import with_statistics


def summarize(folder: StudyFolder, statistics: bool = True) -> StudySummary:
    """Read what a study found so far; a search may be writing it meanwhile.

    Parameters
    ----------
    statistics
        Say how sure it is as well (:func:`kvtune.search.uncertainty.with_statistics`), which reads the captions, and
        what held-out images said.

    Raises
    ------
    RequestError
        If the manifest or the held-out results cannot be read.
    KvtuneError
        If the trials cannot be read.
    """
    manifest = load_manifest(folder)
    ledger = Ledger(folder.ledger)
    summary = summary_of(
        folder.name, manifest, ledger, lambda trial: count_captions(folder.trial_captions(trial.number))
    )
    if not statistics:
        return summary
    summary = with_statistics(folder, manifest, ledger, summary)
    return replace(summary, validation=current_validation(folder, manifest, ledger))


def summary_of(
    name: str, manifest: Manifest, ledger: Ledger, images_of: Callable[[Trial], int] = lambda trial: 0
) -> StudySummary:
    """Summarise a study that is in memory already.

    Parameters
    ----------
    images_of
        Images captioned so far, asked of trials that are not complete.
    """
    complete = [trial for trial in ledger.trials if trial.point is not None]
    points = [trial.point for trial in complete if trial.point is not None]
    reference = manifest.reference_point
    judged = ledger.baseline.state == "complete"
    volume = hypervolume(points, (reference["chair_s"], reference["f1"])) if judged and reference else None
    return StudySummary(
        study=name,
        model=manifest.model,
        method=manifest.fingerprint.method,
        subset={
            "name": manifest.tune["name"],
            "sha256": manifest.tune["sha256"],
            "images": len(manifest.tune["image_ids"]),
        },
        baseline=_trial_summary(ledger.baseline, images_of) if judged else None,
        trials=[_trial_summary(trial, images_of) for trial in ledger.trials],
        front=[complete[index].number or 0 for index in front(points)],
        hypervolume=volume,
        reference_point=reference,
    )


def _trial_summary(trial: Trial, images_of: Callable[[Trial], int]) -> TrialSummary:
    metrics: dict[str, Any] = trial.metrics or {}
    return TrialSummary(
        number=trial.number,
        params=trial.params,
        chair_s=metrics.get("chair_s"),
        chair_i=metrics.get("chair_i"),
        precision=metrics.get("precision"),
        recall=metrics.get("recall"),
        f1=metrics.get("f1"),
        mean_words=metrics.get("mean_words"),
        images=metrics["images"] if metrics else images_of(trial),
        state=trial.state,
        published=trial.published,
    )
