"""Ground truth: what is in COCO's images, by id or by the id in a file's name."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from kvtune.chair import build_ground_truth, load_ground_truth, parse_image_id
from kvtune.coco import CocoFolder, find_coco
from kvtune.coco.layout import fetch_again
from kvtune.errors import RequestError

logger = logging.getLogger(__name__)

_FEW = 3
"""Images: about 1 % of COCO's have no instance, so that of three none has any is a chance of one in a million. Where
more than half of the images have none, instances are missing."""

_SHARE = 0.05
"""Of the images, without an instance: from here on it is said."""


def coco_truth(folder: CocoFolder, image_ids: Iterable[int], instances_only: bool | None = None) -> dict[int, set[str]]:
    """Objects of images: categories of their instances, and those that their reference captions mention.

    COCO has at least five captions of every image. Half of the truth makes other scores (recall of the same captions
    was seen to go from 13 to 30), so it is refused.

    Parameters
    ----------
    instances_only
        Take the instances alone; None where the command has no such option.

    Raises
    ------
    RequestError
        If an image is in no annotation file, or one of the two kinds is missing of them.
    """
    ids = list(image_ids)
    categories = folder.categories(ids)
    bare = sum(not names for names in categories.values())
    found = f"{bare} of {len(categories)} images have no instance in {folder.file_names('instances')} of {folder.root}"
    if bare > len(categories) / 2 and (bare >= _FEW or not folder.has_labels("instances")):
        raise RequestError(f"{found}, where 1 % are expected; {fetch_again(folder.root)}")
    if bare > max(_FEW, _SHARE * len(categories)):
        logger.warning("warning: %s, where 1 %% are expected", found)
    if instances_only:
        return build_ground_truth(categories, {})
    cure = "" if instances_only is None else "; --instances-only takes the truth of instances alone"
    try:
        captions = folder.captions(ids)
    except RequestError as error:
        raise RequestError(f"{error}{cure}") from None
    mute = sum(not texts for texts in captions.values())
    if mute:
        raise RequestError(
            f"{mute} of {len(captions)} images have no reference caption in {folder.file_names('captions')} of "
            f"{folder.root}, where COCO has five of each; {fetch_again(folder.root)}{cure}"
        )
    return build_ground_truth(categories, captions)


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
        known = coco_truth(folder, ids.values())
    for image, image_id in ids.items():
        if image_id not in known:
            raise RequestError(f"image {image_id} ({image.name}) is not in the ground truth {ground_truth or coco}")
    return {image: set(known[image_id]) for image, image_id in ids.items()}
