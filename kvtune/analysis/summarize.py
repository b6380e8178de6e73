"""What a study found, read from its folder; imports neither torch nor Optuna."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kvtune.analysis.held_out import current_validation
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.analysis.uncertainty import with_statistics
from kvtune.chair import METRICS, Scores
from kvtune.errors import RequestError
from kvtune.statistics.hypervolume import hypervolume
from kvtune.study.caption_log import count_captions
from kvtune.study.constraints import Constraints
from kvtune.study.lock import in_use
from kvtune.study.manifest import Manifest, load_manifest, load_trials
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import steadily
from kvtune.study.trials import Ledger, Trial


def summarize(folder: StudyFolder, statistics: bool = True) -> StudySummary:
    """Read what a study found so far; a search may be writing it meanwhile.

    Parameters
    ----------
    statistics
        Say how sure it is as well (:func:`kvtune.analysis.uncertainty.with_statistics`), which reads the captions, and
        what held-out images said.

    Raises
    ------
    RequestError
        If the manifest or the held-out results cannot be read.
    KvtuneError
        If the trials cannot be read.
    """
    return steadily(folder, lambda: _summarize(folder, statistics))


def _summarize(folder: StudyFolder, statistics: bool) -> StudySummary:
    manifest = load_manifest(folder)
    ledger = load_trials(folder, manifest)
    summary = summary_of(folder, manifest, ledger, lambda trial: count_captions(folder.trial_captions(trial.number)))
    summary = replace(summary, in_use=in_use(folder.path))
    if not statistics:
        return summary
    summary = with_statistics(folder, manifest, ledger, summary)
    return replace(summary, validation=current_validation(folder, manifest, ledger))


def summary_of(
    folder: StudyFolder, manifest: Manifest, ledger: Ledger, images_of: Callable[[Trial], int] = lambda trial: 0
) -> StudySummary:
    """Summarise a study that is in memory already.

    Parameters
    ----------
    images_of
        Images captioned so far, asked of trials that are not judged yet.
    """
    constraints = manifest.constraints(ledger.baseline)
    complete = [trial for trial in ledger.trials if constraints.met_by(trial)]
    points = [trial.point for trial in complete if trial.point is not None]
    reference = manifest.reference_point
    judged = ledger.baseline.state == "complete"
    volume = hypervolume(points, reference.point) if judged and reference else None
    return StudySummary(
        study=folder.name,
        model=manifest.model,
        method=manifest.fingerprint.method,
        subset=manifest.tune.info,
        baseline=_trial_summary(ledger.baseline, images_of, Constraints(), folder) if judged else None,
        trials=[_trial_summary(trial, images_of, constraints, folder) for trial in ledger.trials],
        front=constraints.front(ledger.trials),
        hypervolume=volume,
        reference_point=None if reference is None else reference.model_dump(),
        race_confidence=None if manifest.race is None else manifest.race.confidence,
        floors=dict(constraints.floors),
    )


def _scores(metrics: Mapping[str, Any], folder: StudyFolder) -> Scores:
    missing = [name for name in METRICS if name not in metrics]
    if missing:
        cure = f"run kvtune rescore {folder.argument}"
        raise RequestError(f"study {folder.name} was scored without {', '.join(missing)}; {cure}")
    return Scores(**metrics)


def _trial_summary(
    trial: Trial, images_of: Callable[[Trial], int], constraints: Constraints, folder: StudyFolder
) -> TrialSummary:
    scores = None if trial.metrics is None else _scores(trial.metrics, folder)
    return TrialSummary(
        number=trial.number,
        params=trial.params,
        scores=scores,
        images=images_of(trial) if scores is None else scores.images,
        state=trial.state,
        published=trial.published,
        raced_out_by=trial.by,
        below_floor=constraints.below(trial.metrics) if trial.metrics else (),
    )
