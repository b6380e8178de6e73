"""What is in the pictures that image files show, by the COCO ids in their names."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kvtune.chair import build_ground_truth, load_ground_truth, parse_image_id
from kvtune.coco import CocoFolder, find_coco
from kvtune.errors import RequestError


def truth_of_files(images: Sequence[Path], ground_truth: Path | None, coco: Path | None) -> dict[Path, set[str]]:
    """Categories in each picture; empty where neither a ground-truth file nor a COCO folder is given.

    Raises
    ------
    RequestError
        If both are given, a file's name has no COCO id, or the ground truth does not know it.
    """
    if ground_truth is not None and coco is not None:
        raise RequestError("give --ground-truth or --coco, not both")
    if ground_truth is None and coco is None:
        return {}
    ids = {}
    for image in images:
        try:
            ids[image] = parse_image_id(image.name)
        except ValueError:
            raise RequestError(f"{image.name} has no COCO id in its name; leave out the ground truth") from None
    known: Mapping[int, Collection[str]]
    if ground_truth is not None:
        known = load_ground_truth(ground_truth)
    else:
        folder = CocoFolder(find_coco(coco))
        known = build_ground_truth(folder.categories(ids.values()), folder.captions(ids.values()))
    for image, image_id in ids.items():
        if image_id not in known:
            raise RequestError(f"image {image_id} ({image.name}) is not in the ground truth {ground_truth or coco}")
    return {image: set(known[image_id]) for image, image_id in ids.items()}
