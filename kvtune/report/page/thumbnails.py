"""Small copies of images, for the page."""

import io
from pathlib import Path

from kvtune.coco import load_image

SIDE = 144
"""Pixels of the longer side: 500 of them add about 4 MB to a page."""


def thumbnail(path: Path) -> bytes:
    """Return an image as a JPEG file, at most ``SIDE`` pixels wide and high; a smaller one keeps its size.

    Raises
    ------
    RequestError
        If the image cannot be read.
    """
    image = load_image(path)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70, optimize=True)
    return file.getvalue()
