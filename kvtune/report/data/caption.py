"""What ``kvtune caption --json`` prints."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.chair.spans import MentionFinder

if TYPE_CHECKING:
    from kvtune.apply.at_work import Done, Job
    from kvtune.captioning.side_by_side import Pair


def captions_document(
    model: str,
    preset: str | None,
    pairs: "Sequence[Pair]",
    truth: Mapping[Path, Collection[str]],
    finder: MentionFinder,
) -> dict[str, Any]:
    """What ``kvtune caption --json`` prints."""
    images = []
    for pair in pairs:
        written = {"baseline": pair.baseline, "preset": pair.treated}
        captions = {
            heading: {
                "caption": caption.text,
                "tokens": len(caption.token_ids),
                "finish_reason": caption.finish_reason,
                "mentioned": [category for _, _, category in finder(caption.text)],
            }
            for heading, caption in written.items()
            if caption is not None
        }
        known = sorted(truth[pair.image]) if pair.image in truth else None
        images.append({"image": str(pair.image), "in_picture": known, "captions": captions})
    return {"model": model, "preset": preset, "images": images}


def applied_document(job: "Job", done: "Done") -> dict[str, Any]:
    """What ``kvtune caption --out FILE --json`` prints."""
    made = done.made_with
    return {
        "out": str(job.out),
        "model": None if made is None else made.model,
        "preset": None if made is None else made.preset,
        "prompt": None if made is None else made.prompt,
        "images": len(job.images),
        "captions": done.captions,
        "written": done.written,
        "images_per_second": done.images_per_second,
        "skipped": [{"image": str(path), "reason": why} for path, why in done.skipped.items()],
    }
