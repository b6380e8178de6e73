"""How sure a study's numbers are: its summary with intervals, differences to the baseline, ties, length control and
notes on its captions."""

from dataclasses import replace

import numpy as np

from kvtune.analysis.judge import differences
from kvtune.analysis.length_control import cut_baseline, length_of
from kvtune.analysis.outcomes import Outcome, Outcomes
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import load_ground_truth
from kvtune.chair.notes import Note, look_at
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.hypervolume import hypervolume_estimate
from kvtune.study.judged import LostCaptionsError, judged_captions
from kvtune.study.manifest import Manifest
from kvtune.study.scoring import Scoring
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger


def with_statistics(folder: StudyFolder, manifest: Manifest, ledger: Ledger, summary: StudySummary) -> StudySummary:
    """Add what resampling the images says.

    Trials that were scored by another scorer or against another ground truth than the study's are left as they are:
    ``kvtune rescore`` makes them alike. Those whose captions are lost get a note that says so. A raced trial gets the
    intervals of the images that it saw, and is not compared with the baseline, whose scores are over all.
    """
    if not folder.ground_truth.exists():
        return summary
    scoring = Scoring(load_ground_truth(folder.ground_truth))
    outcomes = Outcomes(folder.counts, scoring)
    known: dict[int | None, Outcome] = {}
    raced: dict[int | None, Outcome] = {}
    notes: dict[int | None, tuple[Note, ...]] = {}
    lost: dict[int | None, Note] = {}
    curve = []
    for trial in [ledger.baseline, *ledger.trials]:
        if trial.metrics is None or trial.scoring != scoring.identity:
            continue
        try:
            captions = judged_captions(folder, manifest, trial)
        except LostCaptionsError as error:
            lost[trial.number] = _lost_note(error)
            continue
        captions.sort(key=lambda line: line["image_id"])  # as kvtune.analysis.judge resamples images
        outcome = outcomes.of(captions)
        (raced if trial.state == "raced" else known)[trial.number] = outcome
        notes[trial.number] = tuple(look_at(captions, outcome.counts))
        if trial.number is None:
            curve = cut_baseline(outcomes.of_cuts(captions))
    outcomes.save()
    summary = _with_notes(summary, lost)
    if not known:
        return summary

    place = {number: index for index, number in enumerate(known)}
    bootstrap = Bootstrap(np.stack([outcome.counts for outcome in known.values()]))
    finished = sum(trial.state in ("complete", "raced") for trial in ledger.trials)
    compared = differences(place, bootstrap, given_up=finished - sum(number is not None for number in place))
    members = [number for number in summary.front if number in place]
    ties: dict[int, list[int]] = {number: [] for number in members}
    for index, one in enumerate(members):
        for other in members[index + 1 :]:
            if bootstrap.tied(place[one], place[other]):
                ties[one].append(other)
                ties[other].append(one)
    changed = {
        trial.number: replace(
            trial,
            notes=notes[trial.number],
            intervals=bootstrap.intervals(place[trial.number]),
            differences=compared.get(trial.number, {}),
            ties=tuple(ties.get(trial.number, ())) if trial.number is not None else (),
            length=length_of(
                known[trial.number],
                None if trial.number is None else trial.scores,
                curve,
            ),
        )
        for trial in summary.settings
        if trial.number in place
    }
    changed |= {
        trial.number: replace(
            trial,
            notes=notes[trial.number],
            intervals=Bootstrap(raced[trial.number].counts[None]).intervals(0),
            length=length_of(raced[trial.number]),
        )
        for trial in summary.trials
        if trial.number in raced
    }
    estimate = None
    complete = [trial.number for trial in summary.trials if trial.state == "complete" and not trial.below_floor]
    if summary.hypervolume is not None and summary.reference_point and all(number in place for number in complete):
        columns = [place[number] for number in complete]
        replicates = bootstrap.replicates
        reference = (summary.reference_point["chair_s"], summary.reference_point["f1"])
        estimate = hypervolume_estimate(
            summary.hypervolume, replicates["chair_s"][:, columns], replicates["f1"][:, columns], reference
        )
    return replace(
        summary,
        baseline=changed.get(None, summary.baseline),
        trials=[changed.get(trial.number, trial) for trial in summary.trials],
        hypervolume_estimate=estimate,
        cut_baseline=curve,
    )


def _lost_note(error: LostCaptionsError) -> Note:
    return Note("lost-captions", error.count, 100 * error.count / error.images, f"{error}; its scores are as recorded")


def _with_notes(summary: StudySummary, notes: dict[int | None, Note]) -> StudySummary:
    def noted(trial: TrialSummary) -> TrialSummary:
        return replace(trial, notes=(notes[trial.number],)) if trial.number in notes else trial

    baseline = summary.baseline
    return replace(summary, baseline=baseline and noted(baseline), trials=[noted(trial) for trial in summary.trials])
