"""From a chosen trial to the preset that carries it out."""

from dataclasses import replace
from typing import Any, Literal

from kvtune.analysis.claims import evidence
from kvtune.analysis.held_out import holds_for, load_validation, on_held_out
from kvtune.analysis.result import Validation
from kvtune.analysis.selection import KEEP_F1, RULES, Selection, select, unknown_rule
from kvtune.analysis.sensitivity import load_sensitivity
from kvtune.analysis.summarize import summary_of
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.analysis.uncertainty import with_statistics
from kvtune.errors import RequestError
from kvtune.presets import (
    GenerationInfo,
    MetricsInfo,
    ModelInfo,
    Preset,
    SelectionInfo,
    StudyInfo,
)
from kvtune.study.manifest import Manifest, load_manifest, load_trials
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import steadily
from kvtune.study.trials import Ledger, Trial
from kvtune.text import quoted

On = Literal["tune", "holdout"]

SENSITIVITY = "sensitivity:"

OPTIMISTIC = "selected on held-out, estimate optimistic"


def export(folder: StudyFolder, rule: str = KEEP_F1, on: On = "tune") -> tuple[Preset, Selection]:
    """Choose a trial of a study and make it a preset.

    Where ``kvtune validate`` has judged the trial on held-out images, the preset carries that as ``metrics.holdout``.

    Parameters
    ----------
    rule
        One of :data:`kvtune.analysis.selection.RULES`, or ``sensitivity:NAME=VALUE`` for a setting that ``kvtune
        sensitivity`` judged and that is no trial.
    on
        The images on which the rule is applied. On held-out images, they are no longer held out: the preset is stamped
        so.

    Returns
    -------
    (Preset, Selection)
        The preset, not saved yet, and what was chosen by which rule.

    Raises
    ------
    RequestError
        If the study cannot be read, there is no such rule or trial, or nothing to choose by was validated.
    KvtuneError
        If the rule finds no trial; see :func:`kvtune.analysis.selection.select`.
    """
    return steadily(folder, lambda: _export(folder, rule, on))


def _export(folder: StudyFolder, rule: str, on: On) -> tuple[Preset, Selection]:
    manifest = load_manifest(folder)
    ledger = load_trials(folder, manifest)
    summary = with_statistics(folder, manifest, ledger, summary_of(folder, manifest, ledger))
    validation = load_validation(folder)
    if on == "holdout":
        selection = _select_on_held_out(folder, manifest, ledger, summary, validation, rule)
    elif rule.startswith(SENSITIVITY):
        selection = _select_sensitivity(folder, manifest, ledger, summary, rule)
    elif rule not in RULES and not rule.startswith("trial:"):
        raise unknown_rule(rule, [*RULES, f"{SENSITIVITY}NAME=VALUE"])
    else:
        selection = select(summary, rule)
    number = selection.trial.number
    trial = selection.trial if number is None else summary.trials[number]
    assert trial.scores is not None
    fingerprint = manifest.fingerprint
    method = fingerprint.space.method_of(selection.trial.params)
    preset = Preset(
        schema_version=Preset.version_for(method.name),
        name=f"{folder.name}-" + (selection.name or f"trial-{number}"),
        method=method.name,
        parameters=method.parameters(),
        model=ModelInfo(
            family=manifest.family, id=fingerprint.model, revision=fingerprint.revision, layers=manifest.layers
        ),
        generation=GenerationInfo(
            prompt=fingerprint.prompt, max_new_tokens=fingerprint.max_new_tokens, dtype=fingerprint.dtype
        ),
        selection=SelectionInfo(rule=selection.rule, on=on),
        metrics=MetricsInfo(
            tune=trial.scores.to_dict() | _on_tune(trial),
            holdout=None if number is None else _held_out(manifest, ledger, ledger[number], validation, selection),
            baseline=(ledger.baseline.metrics or {}) | (_on_tune(summary.baseline) if summary.baseline else {}),
        ),
        subset=manifest.tune.info,
        study=StudyInfo(name=folder.name, trial=number),
        versions=manifest.versions | {"device": manifest.device},
        source="search",
    )
    return preset, selection


def _select_sensitivity(
    folder: StudyFolder, manifest: Manifest, ledger: Ledger, summary: StudySummary, rule: str
) -> Selection:
    """A setting that ``kvtune sensitivity`` judged: ``sensitivity:NAME=VALUE``."""
    found = load_sensitivity(folder)
    if found is None or found.study_id != manifest.id:
        raise RequestError(f"nothing of {folder.name} was varied; run kvtune sensitivity {folder.argument} first")
    if found.scoring != ledger.baseline.scoring:
        raise RequestError(
            f"kvtune sensitivity scored by another scorer or against another ground truth than {folder.name} has now; "
            f"run it again, no caption is written twice: kvtune sensitivity {folder.argument}"
        )
    name, _, value = rule.removeprefix(SENSITIVITY).partition("=")
    points = next((sweep.points for sweep in found.sweeps if sweep.parameter == name), [])
    point = next((point for point in points if value in (str(point.value), f"{point.value:g}")), None)
    if point is None:
        tried = ", ".join(f"{point.value:g}" for point in points)
        there = f"{name} was {tried}" if points else f"it varied {', '.join(each.parameter for each in found.sweeps)}"
        raise RequestError(f"kvtune sensitivity did not try {quoted(rule.removeprefix(SENSITIVITY))}; {there}")
    if point.trial is not None:
        return select(summary, f"trial:{point.trial}")
    params, scores = found.around | {name: point.value}, point.metrics
    trial = TrialSummary(None, params, scores, scores.images, "complete", intervals=point.intervals)
    return Selection(trial, f"{name} {value}, which kvtune sensitivity tried", name=f"{name}-{value}")


def _select_on_held_out(
    folder: StudyFolder,
    manifest: Manifest,
    ledger: Ledger,
    summary: StudySummary,
    validation: Validation | None,
    rule: str,
) -> Selection:
    if validation is None or not holds_for(validation, manifest, ledger, ledger.baseline):
        raise RequestError(f"{folder.name} has no held-out results to select on; run kvtune validate {folder.argument}")
    held_out, number = on_held_out(summary, validation), rule.removeprefix("trial:")
    validated = [str(trial.number) for trial in held_out.trials]
    if number != rule and number not in validated and number in (str(trial.number) for trial in summary.trials):
        there = ", ".join(validated)
        raise RequestError(f"trial {number} of {folder.name} was not validated; those that were are {there}")
    selection = select(held_out, rule)
    return replace(selection, rule=f"{selection.rule} ({OPTIMISTIC})", on="holdout")


def _on_tune(trial: TrialSummary) -> dict[str, Any]:
    """What is known of a trial beside its scores, and why it does not beat the baseline cut to as many words, if so."""
    if not trial.intervals:
        return {}
    length = {"length_flag": trial.length and trial.length.flag} if trial.differences else {}
    return evidence(trial.intervals, trial.differences) | length


def _held_out(
    manifest: Manifest, ledger: Ledger, trial: Trial, validation: Validation | None, selection: Selection
) -> dict[str, Any] | None:
    """What held-out images said of the trial and of the baseline; None where nobody asked, or of something else."""
    if validation is None:
        return None
    found, baseline = validation.of(trial.number), validation.of(None)
    if found is None or baseline is None or not holds_for(validation, manifest, ledger, trial):
        return None
    holdout = found.holdout
    entry = holdout.metrics.to_dict() | evidence(holdout.intervals, holdout.differences)
    entry |= {
        "shrinkage": found.shrinkage,
        "subset": validation.subset.model_dump(),
        "baseline": baseline.holdout.metrics.to_dict(),
    }
    return entry | ({"note": OPTIMISTIC} if selection.on == "holdout" else {})
