"""What is on disk and how far each study is; imports neither torch nor Optuna."""

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvtune.analysis.summarize import summarize
from kvtune.chair import OBJECTIVES
from kvtune.errors import KvtuneError
from kvtune.study.caption_log import count_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder, modified, study_folders
from kvtune.study.trials import State
from kvtune.study.workers import read_workers


@dataclass(frozen=True)
class Overview:
    """One study in a line.

    Attributes
    ----------
    problem
        Why the study cannot be read; everything but ``study``, ``path`` and ``updated`` is then empty.
    trials
        Number of trials by state.
    in_use
        Whether a process writes it; if none does, trials that are running are those that a search goes on with.
    captions
        Captions on disk, those of trials in work included.
    device
        On what a search last ran.
    workers, workers_in_words
        Who writes, or last wrote, captions, and what is to be said of them; None where that is one device.
    updated
        When a search, or a rescoring, last began or judged the baseline; ISO 8601.
    """

    study: str
    path: str
    updated: str
    problem: str | None = None
    model: str | None = None
    method: str | None = None
    images: int | None = None
    trials: dict[State, int] | None = None
    in_use: bool = False
    captions: int | None = None
    front: int | None = None
    hypervolume: float | None = None
    baseline: dict[str, float | None] | None = None
    device: str | None = None
    workers: list[dict[str, Any]] | None = None
    workers_in_words: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The overview as ``kvtune studies --json`` prints it."""
        return {name: value for name, value in asdict(self).items() if name != "workers_in_words"}


def overviews(studies: Path) -> list[Overview]:
    """Every study in a folder, the latest first; one that cannot be read says why."""
    return [_overview(folder) for folder in study_folders(studies)]


def _overview(folder: StudyFolder) -> Overview:
    changed = datetime.fromtimestamp(modified(folder), UTC).isoformat(timespec="seconds")
    try:
        summary = summarize(folder, statistics=False)
        device, workers = load_manifest(folder).device, read_workers(folder.workers)
        captions = sum(count_captions(path) for path in folder.captions.glob("*.jsonl"))
    except (KvtuneError, OSError) as error:
        return Overview(folder.name, str(folder.path), changed, problem=str(error))
    baseline = summary.baseline
    return Overview(
        study=folder.name,
        path=str(folder.path),
        updated=changed,
        model=summary.model,
        method=summary.method,
        images=summary.subset.images,
        trials=dict(sorted(Counter(trial.state for trial in summary.trials).items())),
        in_use=summary.in_use,
        captions=captions,
        front=len(summary.front),
        hypervolume=summary.hypervolume,
        baseline=None if baseline is None else {name: baseline.rate(name) for name in OBJECTIVES},
        device=device,
        workers=None if workers is None else workers.workers,
        workers_in_words=None if workers is None else workers.in_words,
    )
