"""How sure a study's numbers are: its summary with intervals, differences to the baseline, ties, length control and
notes on its captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from kvtune.analysis.judge import differences
from kvtune.analysis.length_control import cut_baseline, length_of
from kvtune.analysis.outcomes import Outcome, Outcomes
from kvtune.analysis.summary import CutBaseline, StudySummary, TrialSummary
from kvtune.chair import OBJECTIVES
from kvtune.chair.notes import Note, look_at
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.hypervolume import HypervolumeEstimate, hypervolume_estimate
from kvtune.study.judged import LostCaptionsError, judged_captions
from kvtune.study.manifest import Manifest
from kvtune.study.scoring import Scoring, truth_of
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
    scoring = Scoring(truth_of(folder))
    read = _read(folder, manifest, ledger, scoring)
    summary = _with_notes(summary, read.lost)
    if not read.complete:
        return summary

    place = {number: index for index, number in enumerate(read.complete)}
    bootstrap = Bootstrap(np.stack([outcome.counts for outcome in read.complete.values()]))
    tried = sum(number is not None for number in place)
    compared = differences(place, bootstrap, given_up=ledger.finished - tried)
    ties = _ties([number for number in summary.front if number in place], place, bootstrap)

    def seen(trial: TrialSummary) -> TrialSummary:
        number = trial.number
        if number in place:
            return replace(
                trial,
                notes=read.notes[number],
                intervals=bootstrap.intervals(place[number]),
                differences=compared.get(number, {}),
                ties=ties.get(number, ()),
                length=length_of(read.complete[number], None if number is None else trial.scores, read.cuts),
            )
        if number in read.raced:
            outcome = read.raced[number]
            intervals = Bootstrap(outcome.counts[None]).intervals(0)
            return replace(trial, notes=read.notes[number], intervals=intervals, length=length_of(outcome))
        return trial

    return replace(
        summary,
        baseline=summary.baseline and seen(summary.baseline),
        trials=[seen(trial) for trial in summary.trials],
        hypervolume_estimate=_hypervolume_estimate(summary, place, bootstrap),
        cut_baseline=read.cuts,
    )


@dataclass
class _Read:
    """What the captions of a study came to, by trial; None is the baseline, which is among the complete ones."""

    complete: dict[int | None, Outcome] = field(default_factory=dict)
    raced: dict[int | None, Outcome] = field(default_factory=dict)
    notes: dict[int | None, tuple[Note, ...]] = field(default_factory=dict)
    lost: dict[int | None, Note] = field(default_factory=dict)
    cuts: list[CutBaseline] = field(default_factory=list)


def _read(folder: StudyFolder, manifest: Manifest, ledger: Ledger, scoring: Scoring) -> _Read:
    outcomes = Outcomes(folder.counts, scoring)
    read = _Read()
    for trial in ledger.judged:
        if trial.scoring != scoring.identity:
            continue
        try:
            captions = judged_captions(folder, manifest, trial)
        except LostCaptionsError as error:
            share, text = 100 * error.count / error.images, f"{error}; its scores are as recorded"
            read.lost[trial.number] = Note("lost-captions", error.count, share, text)
            continue
        captions.sort(key=lambda line: line["image_id"])  # as kvtune.analysis.judge resamples images
        outcome = outcomes.of(captions)
        (read.raced if trial.state == "raced" else read.complete)[trial.number] = outcome
        read.notes[trial.number] = tuple(look_at(captions, outcome.counts))
        if trial.number is None:
            read.cuts = cut_baseline(outcomes.of_cuts(captions))
    outcomes.save()
    return read


def _ties(
    front: Sequence[int], place: Mapping[int | None, int], bootstrap: Bootstrap
) -> dict[int | None, tuple[int, ...]]:
    """For each trial of the front, those of it that it is tied with."""
    pairs = [(one, other) for one, other in combinations(front, 2) if bootstrap.tied(place[one], place[other])]
    return {
        number: tuple(other if number == one else one for one, other in pairs if number in (one, other))
        for number in front
    }


def _hypervolume_estimate(
    summary: StudySummary, place: Mapping[int | None, int], bootstrap: Bootstrap
) -> HypervolumeEstimate | None:
    """None where there is no hypervolume, or the captions of a trial that may be on the front are not known."""
    complete = [trial.number for trial in summary.trials if trial.state == "complete" and not trial.below_floor]
    if summary.hypervolume is None or not summary.reference_point or not all(number in place for number in complete):
        return None
    columns = [place[number] for number in complete]
    chair_s, f1 = (bootstrap.replicates[name][:, columns] for name in OBJECTIVES)
    reference = summary.reference_point["chair_s"], summary.reference_point["f1"]
    return hypervolume_estimate(summary.hypervolume, chair_s, f1, reference)


def _with_notes(summary: StudySummary, notes: dict[int | None, Note]) -> StudySummary:
    def noted(trial: TrialSummary) -> TrialSummary:
        return replace(trial, notes=(notes[trial.number],)) if trial.number in notes else trial

    baseline = summary.baseline
    return replace(summary, baseline=baseline and noted(baseline), trials=[noted(trial) for trial in summary.trials])
