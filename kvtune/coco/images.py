"""Opening images, and finding the ones that do not open before anything long starts."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kvtune.errors import RequestError

_AT_ONCE = 4096
"""Images that wait for a thread at a time."""


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


def check_images(paths: Sequence[Path], on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Refuse images that :func:`broken_images` finds; arguments as there.

    Raises
    ------
    RequestError
        If any cannot be read.
    """
    if broken := broken_images(paths, on_progress):
        cure = "delete them and fetch them with kvtune data download, or leave them out of the subset"
        if set(broken.values()) == {os.strerror(errno.EACCES)}:
            cure = "make them readable"
        raise RequestError(f"{told_of_broken(broken, len(paths))}; {cure}")


def broken_images(
    paths: Sequence[Path], on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[Path, str]:
    """Decode every image once, in parallel.

    Parameters
    ----------
    on_progress
        Called in the caller's thread with (images checked, all images).

    Returns
    -------
    dict
        Those that cannot be read, and why, in a few words.
    """
    broken = {}
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            for checked, problem in enumerate(pool.map(problem_with, some), start + 1):
                if problem:
                    broken[paths[checked - 1]] = problem
                on_progress(checked, len(paths))
    return broken


def told_of_broken(broken: Mapping[Path, str], images: int) -> str:
    """How many of so many images cannot be read, and the first three of them."""
    named = [f"{path} ({problem})" for path, problem in islice(broken.items(), 3)]
    more = ["..."] if len(broken) > len(named) else []
    return f"{len(broken)} of {images} images cannot be read: {'; '.join([*named, *more])}"


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
