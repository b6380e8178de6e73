"""Images of requests: opening them, and telling by content which are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from kvtune.coco import load_image
from kvtune.errors import RequestError


def open_image(image: Image.Image | Path) -> Image.Image:
    """The RGB image of a request."""
    return image.convert("RGB") if isinstance(image, Image.Image) else load_image(image)


class ImageKeys:
    """What tells images apart, so that requests of one image share its prompt.

    Parameters
    ----------
    keep
        Tell files apart by what is in them, and remember it; without, by their paths.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self._files: dict[Path, str] = {}
        self._last: tuple[Image.Image, str] | None = None

    def content(self, image: Image.Image | Path) -> str:
        """What tells images apart: a digest of the pixels' colours, or of the file, or the file's path."""
        if isinstance(image, Image.Image):
            # Requests of one image usually come one after the other and hold the same object.
            if self._last is None or self._last[0] is not image:
                self._last = image, f"{image.size}{hashlib.sha256(open_image(image).tobytes()).hexdigest()}"
            return self._last[1]
        if not self._keep:
            return str(image)
        if image not in self._files:
            try:
                self._files[image] = hashlib.sha256(image.read_bytes()).hexdigest()
            except OSError as error:
                raise RequestError(f"image {image} cannot be read: {error.strerror or error}") from None
        return self._files[image]
