"""The captions of a study, packed for its page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.errors import KvtuneError
from kvtune.report.page.pack import PackedCaptions, Progress, pack_captions
from kvtune.report.page.thumbnails import thumbnail
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


def packed_captions(
    folder: StudyFolder,
    summary: StudySummary,
    chosen: int | None,
    *,
    with_images: bool = False,
    coco: Path | None = None,
    on_progress: Progress = lambda done, total: None,
) -> PackedCaptions | None:
    """Pack a study's captions for its page; None where it has none yet.

    Parameters
    ----------
    with_images
        Pack small copies of the tune images too.
    coco
        COCO folder of the images; the one the study was searched with when left out.

    Raises
    ------
    RequestError
        If images are wanted and cannot be read.
    """
    from kvtune.chair import load_ground_truth
    from kvtune.chair.spans import MentionFinder

    sets = [
        (number, {image: line["caption"] for image, line in lines.items()})
        for number, lines in caption_sets(folder, summary, chosen)
    ]
    if not sets:
        return None
    paths: dict[int, Path] = {}
    if with_images:
        from kvtune.coco import CocoFolder

        manifest = load_manifest(folder)
        images = manifest.tune.image_ids
        paths = dict(zip(images, CocoFolder(coco or manifest.coco).image_paths(images), strict=True))
    small = (lambda image: thumbnail(paths[image])) if with_images else None
    return pack_captions(sets, load_ground_truth(folder.ground_truth), MentionFinder(), small, on_progress)
