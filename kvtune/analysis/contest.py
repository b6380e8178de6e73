"""Which of several studies' chosen points are better than which, and than the baseline, on held-out images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from kvtune.analysis.judge import paired_differences, resampled
from kvtune.analysis.result import Difference
from kvtune.analysis.selection import KEEP_F1, RULES, choose
from kvtune.analysis.summarize import summarize
from kvtune.analysis.summary import StudySummary
from kvtune.chair import OBJECTIVES, Scores
from kvtune.errors import KvtuneError
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.confidence import Interval
from kvtune.study.caption_log import read_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.scoring import Scoring, truth_of
from kvtune.study.study_folder import StudyFolder, setting_name

BASELINE = "baseline"
"""Stands for no method among those that are compared."""


@dataclass(frozen=True)
class Entry:
    """One method's study, and its chosen point on held-out images.

    Attributes
    ----------
    chosen, reason
        The trial that ``kvtune export`` takes, chosen on tune images, and its rule in words; None where there is none,
        and ``reason`` says why.
    metrics, intervals
        Of the chosen point on held-out images, with 95 % intervals; none without one.
    captions, tokens
        What its trials cost: captions of tune and held-out images, and tokens in them, which are decode steps of a row.
        The baseline's are not counted.
    """

    method: str
    summary: StudySummary
    chosen: int | None
    reason: str
    metrics: Scores | None
    intervals: dict[str, Interval]
    captions: int
    tokens: int


@dataclass(frozen=True)
class Pair:
    """Two of those that are compared, methods or :data:`BASELINE`; ``differences`` are the first's minus the other's,
    by metric, with p-values adjusted (Holm) over all pairs, metric by metric."""

    one: str
    other: str
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Contest:
    """What a tournament found; ``baseline`` with its ``intervals``, on the same held-out images."""

    entries: list[Entry]
    baseline: Scores
    intervals: dict[str, Interval]
    pairs: list[Pair]


def contest(folders: Sequence[StudyFolder]) -> Contest:
    """Compare the chosen points of validated studies of one model on their common held-out images.

    Raises
    ------
    KvtuneError
        If the studies hold out different images, or lack captions of them.
    """
    manifests = [load_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.holdout.sha256 != manifests[0].holdout.sha256:
            raise KvtuneError(f"{folder.name} and {folders[0].name} hold out different images; give another --name")
    images = manifests[0].holdout.image_ids
    scoring = Scoring(truth_of(folders[0]))

    summaries = [summarize(folder) for folder in folders]
    choices = [choose(summary) for summary in summaries]
    files = {BASELINE: folders[0].holdout_captions(setting_name(None))}
    for folder, summary, choice in zip(folders, summaries, choices, strict=True):
        if choice.trial is not None:
            files[summary.method] = folder.holdout_captions(setting_name(choice.trial))
    metrics, bootstrap = resampled(files, images, scoring)
    place = {name: index for index, name in enumerate(metrics)}
    entries = []
    for folder, summary, choice in zip(folders, summaries, choices, strict=True):
        method = summary.method
        intervals = bootstrap.intervals(place[method]) if method in place else {}
        captions, tokens = _cost(folder)
        reason = choice.reason if choice.trial is None else RULES[KEEP_F1]
        entries.append(Entry(method, summary, choice.trial, reason, metrics.get(method), intervals, captions, tokens))
    return Contest(entries, metrics[BASELINE], bootstrap.intervals(place[BASELINE]), _pairs(place, bootstrap))


def _pairs(place: dict[str, int], bootstrap: Bootstrap) -> list[Pair]:
    names = [(other, one) for one, other in combinations(place, 2)]
    found = paired_differences([(place[one], place[other]) for one, other in names], bootstrap, OBJECTIVES)
    return [Pair(one, other, differences) for (one, other), differences in zip(names, found, strict=True)]


def _cost(folder: StudyFolder) -> tuple[int, int]:
    captions = tokens = 0
    for file in [*folder.captions.glob("trial-*.jsonl"), *(folder.captions / "holdout").glob("trial-*.jsonl")]:
        lines = read_captions(file)
        captions += len(lines)
        tokens += sum(line["tokens"] for line in lines.values())
    return captions, tokens
