"""COCO's own names: splits, annotation files, image files."""

import os
import shlex
from pathlib import Path
from typing import Literal

from kvtune.errors import RequestError
from kvtune.text import command_line, quoted

Kind = Literal["instances", "captions"]
KINDS: tuple[Kind, ...] = ("instances", "captions")

SOURCES = ("val2014", "val2017", "train2014", "train2017")
"""The splits kvtune knows, in the order in which an image id is looked up; 2014 and 2017 share ids and images."""


def check_source(source: str) -> str:
    """Return ``source`` if it is a COCO split.

    Raises
    ------
    RequestError
        If it is not one of :data:`SOURCES`.
    """
    if source not in SOURCES:
        raise RequestError(f"unknown COCO split {quoted(source)}; choose from {', '.join(SOURCES)}")
    return source


def annotation_name(kind: Kind, source: str) -> str:
    """Name of an annotation file, such as ``instances_val2014.json``."""
    return f"{kind}_{source}.json"


def image_name(source: str, image_id: int) -> str:
    """Name of an image file: ``COCO_val2014_000000000042.jpg`` in 2014, ``000000000042.jpg`` in 2017."""
    prefix = f"COCO_{source}_" if source.endswith("2014") else ""
    return f"{prefix}{image_id:012d}.jpg"


def find_annotations(root: Path, kind: Kind, source: str) -> Path | None:
    """Path of an annotation file in ``root``, or None."""
    candidates = (folder / annotation_name(kind, source) for folder in (root / "annotations", root))
    return next((path for path in candidates if path.is_file()), None)


def has_annotations(root: Path, kind: Kind, source: str) -> bool:
    """Whether an annotation file is there and not cut off: it ends with the brace that ends its object."""
    path = find_annotations(root, kind, source)
    if path is None or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 16), os.SEEK_END)
        return file.read().rstrip().endswith(b"}")


def sources_in(root: Path) -> list[str]:
    """Splits that ``root`` has annotations of, in the order of :data:`SOURCES`."""
    return [source for source in SOURCES if any(find_annotations(root, kind, source) for kind in KINDS)]


def find_image(root: Path, source: str, name: str) -> Path | None:
    """Path of an image file in ``root``, or None."""
    folders = root / source, root / "images" / source, root, root / "images"
    candidates = (folder / name for folder in folders)
    return next((path for path in candidates if path.is_file()), None)


def find_any_image(root: Path, image_id: int) -> Path | None:
    """Path of an image under COCO's own file name for any split, or None."""
    found = (find_image(root, source, image_name(source, image_id)) for source in SOURCES)
    return next((path for path in found if path is not None), None)


def fetch_again(root: Path) -> str:
    """The cure for an annotation file that is not as COCO's are; what is there is never fetched over."""
    return f"delete the file and fetch COCO's: {download_command(root)}"


def download_command(root: Path, options: str = "") -> str:
    """The command that fetches what is missing, for messages.

    Parameters
    ----------
    options
        Which images: ``"--subset opera500"``, ``"--images 500 --holdout-images 500 --seed 0"``; empty for
        those that a search with default settings needs.
    """
    return command_line(["kvtune", "data", "download", "--to", str(root), *shlex.split(options)])
