"""What ``kvtune pareto --json`` prints."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kvtune.analysis.result import Validation
from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import METRICS
from kvtune.report.data.overlay import OverlayPoint
from kvtune.statistics.bootstrap import RESAMPLES, SEED
from kvtune.statistics.confidence import CONFIDENCE


def study_document(summary: StudySummary, chosen: Choice, overlays: Sequence[OverlayPoint] = ()) -> dict[str, Any]:
    """Return a study as one JSON document.

    Keys
    ----
    study, model, method
        Names.
    subset
        ``{"name", "sha256", "images"}`` of the tune subset.
    baseline
        As a trial, with ``number`` null and ``params`` empty; null until it is judged.
    trials
        By number; see :func:`trial_document`.
    front
        Numbers of the non-dominated complete trials that are not below a floor, by rising CHAIR_S.
    chosen
        ``{"trial", "rule", "reason"}``: what ``kvtune export`` would take by the same rule; ``trial`` is null where the
        rule finds none and ``reason`` says why.
    hypervolume
        Percent of the box from the reference point to (0, 100); null without a baseline.
    floors
        The least ``f1`` (percent) and ``mean_words`` of a trial on the front; empty where nothing is asked of it.
    race_confidence
        With which trials are raced; null where they are not.
    reference_point
        ``{"chair_s", "f1"}`` in percent; null without a baseline.
    hypervolume_estimate
        ``{"corrected", "bias", "interval"}``: the hypervolume less its luck, see
        :class:`kvtune.statistics.hypervolume.HypervolumeEstimate`; null where it was not computed.
    cut_baseline
        The baseline's captions cut to their first 1, 2, 3, ... ``sentences``, with their scores.
    statistics
        What intervals and p-values are made with: ``confidence``, ``resamples``, ``seed``.
    overlays
        Results of other methods, see :func:`overlay_document`.
    validation
        Held-out results, see :func:`validation_document`.
    notes
        What makes captions of the baseline and the trials implausible: ``{"trial", "kind", "count", "share", "text"}``,
        see :class:`kvtune.chair.notes.Note`; ``trial`` is null for the baseline.
    """
    estimate = summary.hypervolume_estimate
    return {
        "study": summary.study,
        "model": summary.model,
        "method": summary.method,
        "subset": summary.subset.model_dump(),
        "baseline": trial_document(summary.baseline) if summary.baseline else None,
        "trials": [trial_document(trial) for trial in summary.trials],
        "front": summary.front,
        "floors": summary.floors,
        "race_confidence": summary.race_confidence,
        "chosen": asdict(chosen),
        "hypervolume": summary.hypervolume,
        "reference_point": summary.reference_point,
        "hypervolume_estimate": None
        if estimate is None
        else {"corrected": estimate.corrected, "bias": estimate.bias, "interval": estimate.interval},
        "cut_baseline": [asdict(cut) for cut in summary.cut_baseline],
        "statistics": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
        "overlays": [overlay_document(point) for point in overlays],
        "validation": validation_document(summary.validation),
        "notes": [{"trial": number, **note.to_dict()} for number, note in summary.notes],
    }


def trial_document(trial: TrialSummary) -> dict[str, Any]:
    """Return one trial: its parameters, rates in percent (null while nothing is judged), state and intervals.

    ``intervals`` maps the name of a rate to ``[low, high]``, 95 %, for those that were computed. ``differences`` maps
    it to the paired difference to the baseline: ``value``, ``interval``, ``p_value`` and Holm's ``p_adjusted``.
    ``ties`` are the numbers of front points that this one is tied with. ``length`` is null where it was not looked at,
    else ``at_limit`` (percent of captions), ``distinct`` (distinct-1 to -3), ``cut_chair_s`` and ``cut_f1`` (the
    baseline cut to as many words) and ``flag`` (why it does not beat that, or null). ``raced_out_by`` is the trial that
    dominates a raced one, whose rates are over its ``images`` alone. ``below_floor`` are the metrics below the study's
    floors.
    """
    return {
        "number": trial.number,
        "params": trial.params,
        **{name: trial.rate(name) for name in METRICS},
        "images": trial.images,
        "state": trial.state,
        "published": trial.published,
        "intervals": trial.intervals,
        "differences": {name: asdict(found) for name, found in trial.differences.items()},
        "ties": list(trial.ties),
        "raced_out_by": trial.raced_out_by,
        "below_floor": list(trial.below_floor),
        "length": None if trial.length is None else asdict(trial.length),
    }


def overlay_document(point: OverlayPoint) -> dict[str, Any]:
    """Return one overlay: ``label``, its rates in percent, ``reported`` (over other images), ``source``, ``notes``."""
    notes = [note.to_dict() for note in point.notes]
    return {"label": point.label, **point.scores, "reported": point.reported, "source": point.source, "notes": notes}


def validation_document(found: Validation | None) -> dict[str, Any] | None:
    """Return ``report/validation.json`` without the settings that are not of the study any more; null if none is left.

    See :class:`kvtune.analysis.result.Validation`.
    """
    return None if found is None else found.model_dump(mode="json")
