"""``report/validation.json``: what settings of a study did on images that no search has seen."""

from dataclasses import replace
from typing import Any

from kvtune.analysis.result import Validated, Validation
from kvtune.analysis.summary import StudySummary
from kvtune.chair import METRICS
from kvtune.errors import RequestError
from kvtune.json_files import read_json
from kvtune.schema import validated
from kvtune.statistics.front import front_numbers
from kvtune.study.manifest import Manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial


def load_validation(folder: StudyFolder) -> Validation | None:
    """Read a study's held-out results; None where nothing was validated, or before one of the metrics was there.

    Raises
    ------
    RequestError
        If the file cannot be read.
    """
    if not folder.validation.exists():
        return None
    try:
        document = read_json(folder.validation, "validation")
        if _lacks_a_metric(document):
            return None
        return validated(Validation, document, f"validation {folder.validation}")
    except RequestError as error:
        raise RequestError(f"{error}; kvtune validate {folder.argument} writes it anew") from None


def _lacks_a_metric(document: Any) -> bool:
    """Whether there is a metric that none of its settings has."""
    try:
        names = {name for setting in document["settings"] for name in setting["holdout"]["metrics"]}
    except (TypeError, LookupError):
        return False
    return bool(names) and not METRICS.keys() <= names


def holds_for(validation: Validation, manifest: Manifest, ledger: Ledger, trial: Trial) -> bool:
    """Whether held-out results are of this study, this trial, these images and this scorer."""
    found = validation.of(trial.number)
    return (
        found is not None
        and found.params == trial.params
        and validation.study_id == manifest.id
        and validation.subset.sha256 == manifest.holdout.sha256
        and validation.scoring == trial.scoring == ledger.baseline.scoring
    )


def current_validation(folder: StudyFolder, manifest: Manifest, ledger: Ledger) -> Validation | None:
    """Held-out results without those that are not of the study as it is now; None if nothing or no baseline is left.

    Raises
    ------
    RequestError
        If the file cannot be read.
    """
    found = load_validation(folder)
    if found is None or not holds_for(found, manifest, ledger, ledger.baseline):
        return None
    trials = {trial.number: trial for trial in ledger.settings}

    def holds(setting: Validated) -> bool:
        return setting.number in trials and holds_for(found, manifest, ledger, trials[setting.number])

    return found.model_copy(update={"settings": [setting for setting in found.settings if holds(setting)]})


def on_held_out(summary: StudySummary, validation: Validation) -> StudySummary:
    """The study as its held-out images show it: validated trials alone, with their held-out scores and their front."""
    baseline, trials = summary.baseline, []
    for trial in summary.settings:
        found = validation.of(trial.number)
        if found is None or found.params != trial.params or trial.state != "complete":
            continue
        held_out = replace(
            trial,
            scores=found.holdout.metrics,
            images=found.holdout.metrics.images,
            intervals=found.holdout.intervals,
            differences=found.holdout.differences,
            ties=(),
            length=None,
        )
        if trial.number is None:
            baseline = held_out
        else:
            trials.append(held_out)
    return replace(
        summary,
        baseline=baseline,
        trials=trials,
        front=front_numbers(trial for trial in trials if not trial.below_floor),
        subset=validation.subset,
        hypervolume=None,
        hypervolume_estimate=None,
        reference_point=None,
        cut_baseline=[],
    )
