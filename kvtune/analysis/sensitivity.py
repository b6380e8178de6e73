"""``kvtune sensitivity``: one parameter varied, the others held; and what matters over the whole search."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field

from kvtune.analysis.importance import importance
from kvtune.analysis.judge import judge
from kvtune.analysis.selection import KEEP_F1, select
from kvtune.analysis.summarize import summary_of
from kvtune.analysis.summary import StudySummary
from kvtune.chair import Scores
from kvtune.errors import RequestError, check_count
from kvtune.models.options import DEFAULT_ENGINE, EngineOptions
from kvtune.schema import Document
from kvtune.spaces import Range, SearchSpace
from kvtune.statistics.confidence import Interval
from kvtune.statistics.front import dominates
from kvtune.study.captioning import OnProgress, Setting, caption_settings
from kvtune.study.judged import judged_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import Manifest, load_manifest, load_trials
from kvtune.study.scoring import Scoring, truth_of
from kvtune.study.streams import Number
from kvtune.study.study_folder import StudyFolder
from kvtune.study.together import alone
from kvtune.study.trials import Trial
from kvtune.text import did_you_mean, quoted

Format = Literal["kvtune-sensitivity/1"]
FORMAT: Format = get_args(Format)[0]

POINTS = 9
"""Values of a parameter that are tried unless more are asked for."""


class SweepPoint(Document):
    """One value of the varied parameter: scores in percent with their 95 % intervals.

    ``trial`` is the number of the trial that had these very parameters, whose captions were used; null for none.
    ``dominates`` are the trials on the front that it is better than in CHAIR_S or F1 and no worse in the other.
    """

    value: int | float
    trial: int | None
    metrics: Scores
    intervals: dict[str, Interval]
    dominates: list[int] = Field(default_factory=list)


class Sweep(Document):
    """A parameter varied, the others held; ``points`` by rising value."""

    parameter: str
    held: int | float
    points: list[SweepPoint]


class Sensitivity(Document):
    """``report/sensitivity.json``.

    ``around`` are the parameters that are held, those of ``trial``, chosen by ``rule``. ``importance`` is PED-ANOVA's
    share of each parameter for each objective over the study's trials of that method, ``importance_p`` how likely it is
    that chance alone makes any parameter look as important (:class:`kvtune.analysis.importance.Importance`); both null
    for too few trials. ``searched`` are the parameters of the search space that such trials have, ``complete`` is the
    number of these complete trials.
    """

    format: Format
    study: str
    study_id: str
    scoring: str
    trial: int
    rule: str
    around: dict[str, Any]
    baseline: Scores
    sweeps: list[Sweep]
    importance: dict[str, dict[str, float]] | None
    importance_p: dict[str, dict[str, float]] | None = None
    searched: list[str] = Field(default_factory=list)
    complete: int | None = None


def load_sensitivity(folder: StudyFolder) -> Sensitivity | None:
    """Read what was found last; None for nothing.

    Raises
    ------
    RequestError
        If the file cannot be read.
    """
    path = folder.report / "sensitivity.json"
    return Sensitivity.read(path, "sensitivity") if path.exists() else None


def sensitivity(
    folder: StudyFolder,
    coco: Path | None = None,
    rule: str = KEEP_F1,
    parameters: Sequence[str] = (),
    points: int = POINTS,
    engine: EngineOptions = DEFAULT_ENGINE,
    on_progress: OnProgress = lambda pace: None,
) -> Sensitivity:
    """Vary each parameter around one trial on the tune images (KVSmooth, figures 5 to 7).

    Where the study chose among methods, the parameters of that trial's method.

    Captions of settings that were trials are taken from them; others are kept in ``captions/sensitivity/`` and written
    once. Values stay within the search space, so that every setting can be a trial (``kvtune search --enqueue``).

    Parameters
    ----------
    coco
        Where the images are; None for where they were.
    rule
        Chooses the trial; see :data:`kvtune.analysis.selection.RULES`.
    parameters
        Which to vary; all that were searched if empty.
    points
        Values of each, 2 or more; fewer where a parameter has not so many. The trial's own value is always among them.
    on_progress
        Called with how far it is, several times a caption.

    Raises
    ------
    RequestError
        If a parameter was not searched, or the study, the model or an image is missing.
    KvtuneError
        If the rule finds no trial or captioning fails; no caption is lost.
    """
    check_count("--points", points, least=2)
    with locked(folder.path):
        manifest = load_manifest(folder)
        ledger = load_trials(folder, manifest)
        space, image_ids = manifest.fingerprint.space, manifest.tune.image_ids
        summary = summary_of(folder, manifest, ledger)
        selection = select(summary, rule)
        around = selection.trial.params
        ranges = space.searched(around)
        _check_searched(parameters, ranges, folder.name, space, around)
        settings = {
            name: [around | {name: value} for value in sweep_values(ranges[name], around[name], points)]
            for name in (parameters or ranges)
        }
        trials = {_key(trial.params): trial for trial in reversed(ledger.trials) if trial.state == "complete"}
        varied = {_key(params): params for group in settings.values() for params in group}
        wanted = {
            key: Setting(space.method_of(params), _captions_file(folder, manifest, key, trials.get(key)))
            for key, params in varied.items()
        }
        numbered: dict[Number, Setting] = dict(enumerate(wanted.values()))
        alone(caption_settings(folder, manifest, image_ids, numbered, coco, engine, on_progress))

        scoring = Scoring(truth_of(folder))
        judged = judge(wanted, image_ids, scoring)
        baseline = scoring.counts(judged_captions(folder, manifest, ledger.baseline))
        # Parameters of other alternatives are others; so only trials of the same method tell what matters for it.
        chosen = space.alternatives.chosen(around)
        alike = [trial for trial in ledger.trials if space.alternatives.chosen(trial.params) == chosen]
        matters = importance(alike, space)

        def point(name: str, params: dict[str, Any]) -> SweepPoint:
            key = _key(params)
            return SweepPoint(
                value=params[name],
                trial=trials[key].number if key in trials else None,
                metrics=judged[key].metrics,
                intervals=judged[key].intervals,
                dominates=_dominated(judged[key].metrics, summary),
            )

        result = Sensitivity(
            format=FORMAT,
            study=folder.name,
            study_id=manifest.id,
            scoring=scoring.identity,
            trial=selection.trial.number or 0,
            rule=selection.rule,
            around=around,
            baseline=Scores.of(baseline.totals(), images=len(baseline), scorer=scoring.version),
            sweeps=[
                Sweep(parameter=name, held=around[name], points=[point(name, params) for params in group])
                for name, group in settings.items()
            ],
            importance=None if matters is None else matters.shares,
            importance_p=None if matters is None else matters.p_values,
            searched=[*space.choice(), *ranges],
            complete=sum(trial.state == "complete" for trial in alike),
        )
        result.save(folder.report / "sensitivity.json")
    return result


def sweep_values(searched: Range, held: float, points: int) -> list[int | float]:
    """Values of a parameter by rising size: evenly spread over its range, and the one that is held among them."""
    spread = np.geomspace if searched.log else np.linspace
    values: Sequence[float] = searched.grid() or [float(each) for each in spread(searched.low, searched.high, points)]
    places = {round(place) for place in np.linspace(0, len(values) - 1, points)}
    kind = int if searched.whole else float
    others = (kind(values[place]) for place in places)
    return sorted({held, *(value for value in others if not math.isclose(value, held))})


def _dominated(scores: Scores, summary: StudySummary) -> list[int]:
    """The trials on the front that a setting dominates; none for one that is below a floor."""
    if any(scores[name] < least for name, least in summary.floors.items()):
        return []
    points = {trial.number: trial.point for trial in summary.trials}
    here = scores.chair_s, scores.f1
    return [number for number in summary.front if (other := points[number]) is not None and dominates(here, other)]


def _check_searched(
    parameters: Sequence[str], ranges: Mapping[str, Range], study: str, space: SearchSpace, around: Mapping[str, Any]
) -> None:
    """Refuse a parameter that was not searched for settings of this one's method."""
    for name in parameters:
        if name not in ranges:
            of = f" for {space.alternatives.chosen(around)}" if space.alternatives.is_choice else ""
            wrong = f"{quoted(name)} was not searched in {study}{of}{did_you_mean(name, ranges) or ';'}"
            raise RequestError(f"{wrong} it has {', '.join(ranges)}")


def _captions_file(folder: StudyFolder, manifest: Manifest, key: str, trial: Trial | None) -> Path:
    """Where a setting's captions are, if a trial had it, or go."""
    if trial is None:
        return folder.captions / "sensitivity" / f"{key}.jsonl"
    judged_captions(folder, manifest, trial)  # all there, and as they were scored
    return folder.trial_captions(trial.number)


def _key(params: Mapping[str, Any]) -> str:
    """A name for a setting that follows from its parameters."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:16]
