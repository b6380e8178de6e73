"""Small copies of images, for the page."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from kvtune.coco import load_image

SIDE = 144
"""Pixels of the longer side: 500 of them add about 4 MB to a page."""


def thumbnails(
    images: Sequence[tuple[int, Path]], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[int, bytes]:
    """Return image id -> JPEG file, at most ``SIDE`` pixels wide and high; smaller images keep their size.

    Raises
    ------
    RequestError
        If an image cannot be read.
    """
    small = {}
    for done, (image_id, path) in enumerate(images, 1):
        image = load_image(path)
        image.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=70, optimize=True)
        small[image_id] = file.getvalue()
        on_progress(done, len(images))
    return small
