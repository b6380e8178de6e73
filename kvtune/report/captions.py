"""The captions of a study, as the page and the table of outcomes want them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.report.page_captions import PackedCaptions, Progress, pack_captions
from kvtune.report.thumbnails import thumbnail
from kvtune.search.captions import read_captions
from kvtune.search.layout import StudyFolder
from kvtune.search.manifest import load_manifest
from kvtune.search.summary import StudySummary, TrialSummary

if TYPE_CHECKING:
    import pandas as pd


def caption_sets(
    folder: StudyFolder, summary: StudySummary, chosen: int | None = None
) -> Iterator[tuple[int | None, dict[int, dict[str, Any]]]]:
    """Yield (trial number, or None for the baseline; image id -> caption line), the most wanted first.

    That is the baseline, the chosen trial, the published preset, the front, then all others that have captions.
    """

    def rank(trial: TrialSummary) -> tuple[int, int]:
        number = -1 if trial.number is None else trial.number
        wanted = (trial.number is None, number == chosen, trial.published, number in summary.front, True)
        return wanted.index(True), number

    everything = [*([summary.baseline] if summary.baseline else []), *summary.trials]
    for trial in sorted(everything, key=rank):
        lines = read_captions(folder.trial_captions(trial.number))
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
        images = manifest.tune["image_ids"]
        paths = dict(zip(images, CocoFolder(coco or manifest.coco).image_paths(images), strict=True))
    small = (lambda image: thumbnail(paths[image])) if with_images else None
    return pack_captions(sets, load_ground_truth(folder.ground_truth), MentionFinder(), small, on_progress)


def outcomes_frame(folder: StudyFolder, summary: StudySummary) -> "pd.DataFrame":
    """Return one row for each caption of each trial and the baseline, scored now.

    Columns
    -------
    study, number, image_id
        ``number`` is missing for the baseline.
    tokens, finish_reason, words
        Generated tokens, why generation ended (``eos``, ``length``, ``stop``), and words as CHAIR counts them.
    hallucinated_caption
        Whether at least one mention is hallucinated: CHAIR_S is the share of these.
    mentions, hallucinated_mentions
        Numbers of mentions: CHAIR_I is the ratio of their sums.
    mentioned, correct, present
        Numbers of distinct categories that the caption mentions, that are among them and in the image, and that are
        in the image: precision and recall are ratios of their sums.
    mentioned_objects, hallucinated_objects, missed_objects
        The categories by name, each once, joined by ``;``.
    """
    import pandas as pd

    from kvtune.chair import ChairScorer, load_ground_truth

    scorer = ChairScorer(load_ground_truth(folder.ground_truth))
    rows: list[dict[str, Any]] = []
    for number, lines in caption_sets(folder, summary):
        for line, detail in zip(lines.values(), scorer.details(lines.values()), strict=True):
            mentioned = sorted(set(detail["mentioned"]))
            rows.append(
                {
                    "study": summary.study,
                    "number": number,
                    "image_id": detail["image_id"],
                    "tokens": line["tokens"],
                    "finish_reason": line["finish_reason"],
                    "words": detail["words"],
                    "hallucinated_caption": bool(detail["hallucinated"]),
                    "mentions": len(detail["mentioned"]),
                    "hallucinated_mentions": len(detail["hallucinated"]),
                    "mentioned": len(mentioned),
                    "correct": len(detail["correct"]),
                    "present": len(detail["correct"]) + len(detail["missed"]),
                    "mentioned_objects": ";".join(mentioned),
                    "hallucinated_objects": ";".join(sorted(set(detail["hallucinated"]))),
                    "missed_objects": ";".join(detail["missed"]),
                }
            )
    frame = pd.DataFrame(rows, columns=OUTCOME_COLUMNS).astype({"number": "Int64"})
    return frame.sort_values("number", kind="stable", na_position="first", ignore_index=True)


OUTCOME_COLUMNS = [
    "study",
    "number",
    "image_id",
    "tokens",
    "finish_reason",
    "words",
    "hallucinated_caption",
    "mentions",
    "hallucinated_mentions",
    "mentioned",
    "correct",
    "present",
    "mentioned_objects",
    "hallucinated_objects",
    "missed_objects",
]
