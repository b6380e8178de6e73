"""``kvtune score``: CHAIR for any captions file, whoever made it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvtune.cli.common import Json, err, out, print_json
from kvtune.errors import RequestError

if TYPE_CHECKING:
    from rich.table import Table

    from kvtune.chair import ChairScore

logger = logging.getLogger(__name__)


def score(
    captions: Annotated[
        Path, typer.Argument(help='Captions: .json, a list of {"image_id", "caption"}, or .jsonl, one a line.')
    ],
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", help="Objects of each image, as kvtune data ground-truth writes.")
    ] = None,
    coco: Annotated[
        Path | None, typer.Option("--coco", help="COCO folder; else $KVTUNE_COCO, else ~/.cache/kvtune/coco.")
    ] = None,
    image_key: Annotated[
        str, typer.Option(help="Key of the image: an integer, digits or a COCO file name.")
    ] = "image_id",
    caption_key: Annotated[str, typer.Option(help="Key of the caption.")] = "caption",
    details: Annotated[
        Path | None, typer.Option("--details", help="Write what each caption mentions, a line each (.jsonl).")
    ] = None,
    json: Json = False,
) -> None:
    """Score captions with CHAIR, against COCO or a ground-truth file. Recall runs over the captioned images only.

    Example: kvtune score captions.jsonl --coco ~/coco
    """
    from kvtune.chair import ChairScorer, read_captions, save_details

    records = read_captions(captions, image_key, caption_key)
    image_ids = list(dict.fromkeys(record["image_id"] for record in records))
    truth = _ground_truth(image_ids, ground_truth, coco)
    missing = [image_id for image_id in image_ids if image_id not in truth]
    if missing:
        raise RequestError(
            f"{len(missing)} of {len(image_ids)} captioned images have no ground truth in {ground_truth} "
            f"(first: {missing[0]}); add their objects, or leave these captions out"
        )
    scorer = ChairScorer(truth)
    result = scorer.score(records)
    if len(records) > len(image_ids):
        logger.warning("warning: %d captions of %d images; each caption counts", len(records), len(image_ids))
    if json:
        print_json(result.to_dict())
    else:
        out.print(_table(result, len(image_ids)))
    if details is not None:
        save_details(scorer.details(records), details)
        err.print(f"wrote {details}", soft_wrap=True, markup=False)


def _ground_truth(
    image_ids: list[int], file: Path | None, coco: Path | None
) -> Mapping[int, frozenset[str] | set[str]]:
    from kvtune.chair import build_ground_truth, load_ground_truth

    if file is not None and coco is not None:
        raise RequestError("--ground-truth and --coco both say what is in the images; give one of them")
    if file is not None:
        return load_ground_truth(file)
    from kvtune.coco import CocoFolder, find_coco

    folder = CocoFolder(find_coco(coco))
    return build_ground_truth(folder.categories(image_ids), folder.captions(image_ids))


def _table(result: "ChairScore", images: int) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, value, meaning in (
        ("CHAIR_S", result.chair_s, "% of captions with a hallucinated object"),
        ("CHAIR_I", result.chair_i, "% of mentions that are hallucinated"),
        ("precision", result.precision, "% of the objects mentioned"),
        ("recall", result.recall, "% of the objects in the captioned images"),
        ("F1", result.f1, "their harmonic mean"),
        ("words", result.mean_words, "tokens a caption"),
    ):
        table.add_row(name, f"{value:.2f}", meaning)
    table.add_row("captions", str(result.captions), f"of {images} images")
    table.add_row("scorer", "", result.scorer)
    return table
