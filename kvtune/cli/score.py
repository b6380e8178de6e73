"""``kvtune score``: CHAIR for any captions file, whoever made it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import flag, value
from kvtune.errors import RequestError
from kvtune.files import check_writable

logger = logging.getLogger(__name__)


def score(
    captions: Annotated[
        Path,
        typer.Argument(help="JSON, JSON lines, CSV or TSV with a header; '-' is standard input.", metavar="CAPTIONS"),
    ],
    ground_truth: Annotated[
        Path | None, value("FILE", "Objects of each image, as kvtune data ground-truth writes.")
    ] = None,
    coco: opt.Coco = None,
    instances_only: opt.InstancesOnly = False,
    image_key: opt.ImageKey = "image_id",
    caption_key: opt.CaptionKey = "caption",
    answer_after: Annotated[
        str | None, value("TEXT", "Score what follows the last occurrence of this text in a caption.")
    ] = None,
    complete_sentences: Annotated[
        bool, flag("Drop an unfinished last sentence, as for 64 new tokens.", "--complete-sentences")
    ] = False,
    as_written: Annotated[bool, flag("Leave end-of-text marks and literal \\n in captions.", "--as-written")] = False,
    skip_unknown: Annotated[
        bool, flag("Leave out captions of images that have no ground truth.", "--skip-unknown")
    ] = False,
    details: Annotated[Path | None, value("FILE", "Write what each caption mentions, a line each (.jsonl).")] = None,
    json: opt.Json = False,
) -> None:
    """Score captions with CHAIR, against COCO or a ground-truth file. Recall runs over the captioned images only.

    Example: kvtune score captions.jsonl --coco ~/coco
    """
    from kvtune.analysis.score import score_captions
    from kvtune.chair import read_captions_file, save_details
    from kvtune.chair.cleaning import Cleaning
    from kvtune.chair.notes import look_at_request
    from kvtune.report.terminal.score import score_view

    if ground_truth is not None and coco is not None:
        raise RequestError("--ground-truth and --coco both say what is in the images; give one of them")
    if ground_truth is not None and instances_only:
        raise RequestError("--instances-only is about COCO's annotations; leave it or --ground-truth out")
    if details is not None:
        check_writable(details)
    file = read_captions_file(captions, image_key, caption_key)
    image_ids = list(dict.fromkeys(record["image_id"] for record in file.captions))
    truth, source = _ground_truth(image_ids, ground_truth, coco, instances_only, skip_unknown)
    known = [record for record in file.captions if record["image_id"] in truth]
    unknown = [image_id for image_id in image_ids if image_id not in truth]
    if unknown and not (skip_unknown and known):
        raise RequestError(
            f"{len(unknown)} of {len(image_ids)} captioned images have no ground truth in {source} (first: "
            f"{unknown[0]}); add their objects" + (", or leave their captions out: --skip-unknown" if known else "")
        )
    scored = score_captions(
        known,
        truth,
        Cleaning(as_written, complete_sentences, answer_after),
        fields=file.fields,
        options=True,
        details=details is not None,
        further=look_at_request(len(file.captions), len(known), instances_only),
    )
    if json:
        for note in scored.notes:
            if note.is_warning:
                logger.warning("warning: %s", note.text)
        print_json(scored.to_dict())
    else:
        out().print(score_view(scored))
    if details is not None:
        save_details(scored.details, details)
        err().print_line(f"wrote {details}")


def _ground_truth(
    image_ids: list[int], file: Path | None, coco: Path | None, instances_only: bool, skip_unknown: bool
) -> tuple[Mapping[int, frozenset[str] | set[str]], Path]:
    """Objects of the images, and where they are from."""
    from kvtune.chair import load_ground_truth

    if file is not None:
        return load_ground_truth(file), file
    from kvtune.coco import CocoFolder, find_coco
    from kvtune.coco.truth import coco_truth

    folder = CocoFolder(find_coco(coco))
    if skip_unknown:
        image_ids = [image_id for image_id in image_ids if folder.knows(image_id)]
    return coco_truth(folder, image_ids, instances_only), folder.root
