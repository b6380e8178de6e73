"""Opening images, and finding the ones that do not open before anything long starts."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kvtune.errors import RequestError


def load_image(path: str | Path) -> Image.Image:
    """Load an image as RGB, with the pixels that the CHAIR evaluations of this field use.

    That is Pillow's ``convert("RGB")`` of the pixels as stored: grey, palette and CMYK images are converted, an alpha
    channel is dropped, and an EXIF orientation is not applied.

    Raises
    ------
    RequestError
        If the file is missing, is not an image, or is truncated.
    """
    try:
        return _decode(path)
    except Exception as error:  # Pillow's decoders raise many kinds, depending on where a broken file trips them.
        raise RequestError(f"image {path} cannot be read: {_reason(error)}; replace it or leave it out") from error


def check_images(paths: Sequence[Path], on_progress: Callable[[int, int], None] | None = None) -> None:
    """Decode every image once, in parallel.

    Parameters
    ----------
    paths
        The images.
    on_progress
        Called in the caller's thread with (images checked, all images).

    Raises
    ------
    RequestError
        If any cannot be read; the message says how many and names the first three.
    """
    broken = []
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        for checked, problem in enumerate(pool.map(problem_with, paths), 1):
            if problem:
                broken.append(f"{paths[checked - 1]} ({problem})")
            if on_progress:
                on_progress(checked, len(paths))
    if broken:
        named = "; ".join(broken[:3]) + ("; ..." if len(broken) > 3 else "")
        raise RequestError(
            f"{len(broken)} of {len(paths)} images cannot be read: {named}; "
            "delete them and run kvtune data download again, or leave them out of the subset"
        )


def problem_with(image: Path | BytesIO, most_pixels: int | None = None) -> str | None:
    """Decode an image, a file or its content, and say in a few words why it cannot be read; None if it can.

    With ``most_pixels`` only a JPEG of so many is decoded at all, which bounds the memory that it takes.
    """
    try:
        if most_pixels is not None:
            with Image.open(image, formats=("JPEG",)) as opened:
                if opened.width * opened.height > most_pixels:
                    return f"{opened.width} by {opened.height} pixels, more than such an image has"
        _decode(image)
    except Exception as error:  # as in load_image
        return _reason(error)
    return None


def _decode(source: str | Path | BytesIO) -> Image.Image:
    with Image.open(source) as image:
        return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__
