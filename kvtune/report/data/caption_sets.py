"""The captions of a study, trial by trial."""

from collections.abc import Iterator
from typing import Any

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.errors import KvtuneError
from kvtune.study.caption_log import read_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder


def caption_sets(
    folder: StudyFolder, summary: StudySummary, chosen: int | None = None
) -> Iterator[tuple[int | None, dict[int, dict[str, Any]]]]:
    """Yield (trial number, or None for the baseline; image id -> caption line), the most wanted first.

    That is the baseline, the chosen trial, the published preset, the front, then all others that have captions; of a
    raced trial, those that it was judged by, since how many more were in flight is chance.
    """

    def rank(trial: TrialSummary) -> tuple[int, int]:
        number = -1 if trial.number is None else trial.number
        wanted = (trial.number is None, number == chosen, trial.published, number in summary.front, True)
        return wanted.index(True), number

    for trial in sorted(summary.settings, key=rank):
        try:
            lines = read_captions(folder.trial_captions(trial.number))
        except KvtuneError:
            continue  # which the summary's notes say
        if trial.state == "raced":
            judged = load_manifest(folder).image_order[: trial.images]
            lines = {image_id: lines[image_id] for image_id in judged if image_id in lines}
        if lines:
            yield trial.number, lines
