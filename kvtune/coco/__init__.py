"""COCO: annotations, images, subsets, download. Imports no torch."""

from kvtune.coco.folder import CocoFolder, default_coco, find_coco
from kvtune.coco.images import check_images, load_image
from kvtune.coco.layout import SOURCES, download_command
from kvtune.coco.subset import OPERA500, Subset, available_images, draw, holdout_beside, named_subsets, tune_and_holdout

__all__ = [
    "OPERA500",
    "SOURCES",
    "CocoFolder",
    "Subset",
    "available_images",
    "check_images",
    "default_coco",
    "download_command",
    "draw",
    "find_coco",
    "holdout_beside",
    "load_image",
    "named_subsets",
    "tune_and_holdout",
]
