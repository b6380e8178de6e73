"""The captions of a study, packed for its page."""

from pathlib import Path

from kvtune.analysis.summary import StudySummary
from kvtune.report.data.caption_sets import caption_sets
from kvtune.report.page.pack import PackedCaptions, Progress, pack_captions
from kvtune.report.page.thumbnails import thumbnail
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder


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
    from kvtune.chair.spans import MentionFinder
    from kvtune.study.scoring import truth_of

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
    return pack_captions(sets, truth_of(folder), MentionFinder(), small, on_progress)
