"""``kvtune validate``: front, baseline and published preset on images that took no part in the search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.analysis.judge import STATISTICS, judge
from kvtune.analysis.result import FORMAT, Result, Validated, Validation
from kvtune.analysis.selection import more
from kvtune.analysis.summarize import summary_of
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.analysis.uncertainty import with_statistics
from kvtune.errors import KvtuneError
from kvtune.models.options import DEFAULT_ENGINE, EngineOptions
from kvtune.study.captioning import OnProgress, Setting, caption_settings
from kvtune.study.lock import locked
from kvtune.study.manifest import Manifest, load_manifest, load_trials
from kvtune.study.scoring import Scoring, truth_of
from kvtune.study.streams import Captioning, Number
from kvtune.study.study_folder import StudyFolder, setting_name
from kvtune.study.together import alone
from kvtune.study.trials import Ledger

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner

PUBLISHED = -1
"""From here down: published settings that are no trials, because they are no points of the search space."""


@dataclass(frozen=True)
class _Candidate:
    name: str
    roles: list[Any]
    params: dict[str, Any]
    same_captions: list[int] = field(default_factory=list)


def validate(
    folder: StudyFolder,
    coco: Path | None = None,
    engine: EngineOptions = DEFAULT_ENGINE,
    on_progress: OnProgress = lambda pace: None,
) -> Validation:
    """Caption the held-out images with what the search found, score them and write ``report/validation.json``.

    Captions that were paid for are kept in ``captions/holdout/`` and never written twice, so the same call goes on
    after an interruption, and after more trials captions only what is new on the front.

    Parameters
    ----------
    coco
        Where the images are; None for where they were.
    on_progress
        Called with how far it is, several times a caption.

    Raises
    ------
    RequestError
        If the study, the model or an image is missing, or the study is in use.
    KvtuneError
        If there is no front yet, or captioning fails; no caption is lost.
    """
    return alone(validating(folder, coco, engine, on_progress))


def validating(
    folder: StudyFolder,
    coco: Path | None = None,
    engine: EngineOptions = DEFAULT_ENGINE,
    on_progress: OnProgress = lambda pace: None,
    captioner: "AnyCaptioner | None" = None,
) -> Captioning[Validation]:
    """The same as a work of :mod:`kvtune.study.streams`, with a captioner of the study's model where there is one."""
    with locked(folder.path):
        manifest = load_manifest(folder)
        ledger = load_trials(folder, manifest)
        summary = summary_of(folder, manifest, ledger)
        if summary.baseline is None or not summary.front:
            raise KvtuneError(f"study {folder.name} has no front to validate yet; {more(summary)}")
        candidates = _candidates(manifest, summary, ledger)
        image_ids, space = manifest.holdout.image_ids, manifest.fingerprint.space
        settings = {
            number: Setting(
                None if number is None else space.method_of(candidate.params),
                folder.holdout_captions(candidate.name),
            )
            for number, candidate in candidates.items()
        }
        scoring = Scoring(truth_of(folder))
        _same_scorer(folder, ledger, candidates, scoring)
        yield from caption_settings(folder, manifest, image_ids, settings, coco, engine, on_progress, captioner)
        judged = judge(settings, image_ids, scoring)
        summary = with_statistics(folder, manifest, ledger, summary)
        result = _validation(folder, manifest, summary, candidates, judged, scoring)
        result.save(folder.validation)
    return result


def _candidates(manifest: Manifest, summary: StudySummary, ledger: Ledger) -> dict[Number, _Candidate]:
    """Baseline, published preset and front by number, in this order.

    Of trials on the front whose captions of the tune images are the same, as those of a method that changes nothing,
    the first stands for all.
    """
    found: dict[Number, _Candidate] = {None: _Candidate(setting_name(None), ["baseline"], {})}
    alternatives = manifest.fingerprint.space.alternatives
    for index, one in enumerate(one for one in manifest.published if not one.enqueued):
        name = f"published-{alternatives.chosen(one.parameters)}" if alternatives.is_choice else "published"
        found[PUBLISHED - index] = _Candidate(name, ["published"], one.parameters)
    by_number = summary.by_number
    published = [trial.number for trial in summary.trials if trial.published and trial.state == "complete"]
    wrote = {number: ledger[number].captions or f"unknown, of trial {number}" for number in sorted(summary.front)}
    first = {digest: number for number, digest in reversed(wrote.items())}
    for number in [*published, *(number for number in summary.front if number in first.values())]:
        if number is not None and number not in found:
            roles = ["published"] * (number in published) + ["front"] * (number in summary.front)
            found[number] = _Candidate(setting_name(number), roles, by_number[number].params)
    for number in sorted(set(summary.front) - found.keys()):
        found[first[wrote[number]]].same_captions.append(number)
    return found


def _same_scorer(
    folder: StudyFolder, ledger: Ledger, candidates: Mapping[Number, _Candidate], scoring: Scoring
) -> None:
    judged = [ledger[number] for number in candidates if number is None or number > PUBLISHED]
    if any(trial.scoring != scoring.identity for trial in judged):
        raise KvtuneError(
            f"the tune images of {folder.name} were scored by another scorer or against another ground truth; "
            f"run kvtune rescore {folder.argument} first"
        )


def _validation(
    folder: StudyFolder,
    manifest: Manifest,
    summary: StudySummary,
    candidates: Mapping[Number, _Candidate],
    judged: Mapping[Number, Result],
    scoring: Scoring,
) -> Validation:
    on_tune = summary.by_number
    settings = []
    for number, candidate in candidates.items():
        tune = _tune_result(on_tune[number]) if number in on_tune else None
        holdout = judged[number]
        settings.append(
            Validated(
                name=candidate.name,
                number=None if number is None or number <= PUBLISHED else number,
                roles=candidate.roles,
                params=candidate.params,
                tune=tune,
                holdout=holdout,
                shrinkage={}
                if tune is None
                else {
                    name: found.value - tune.differences[name].value
                    for name, found in holdout.differences.items()
                    if name in tune.differences
                },
                same_captions=candidate.same_captions,
            )
        )
    return Validation(
        format=FORMAT,
        study=folder.name,
        study_id=manifest.id,
        scoring=scoring.identity,
        subset=manifest.holdout.info,
        tune_subset=manifest.tune.info,
        statistics=STATISTICS,
        settings=settings,
    )


def _tune_result(trial: TrialSummary) -> Result:
    assert trial.scores is not None
    return Result(metrics=trial.scores, intervals=trial.intervals, differences=trial.differences)
