"""Images to caption: single files, all of a folder, or those that a list names; and what each is called."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kvtune.chair import parse_image_id
from kvtune.coco.images import broken_images, told_of_broken
from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.json_files import STANDARD_INPUT, read_standard_input, read_text
from kvtune.study.caption_log import ImageId
from kvtune.study.streams import NamedImage

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files of a folder that are taken for images, in capitals too."""

_COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?\d{12}\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)


def list_images(given: Sequence[Path]) -> list[NamedImage]:
    """The images that a command was given, each once, and what their captions call them.

    That is COCO's id where the file has a name of COCO's (``COCO_val2014_000000000042.jpg``, ``000000000042.jpg``),
    else the path: within the folder that was given, or as it was given or listed.

    Parameters
    ----------
    given
        Images; folders, of which all images are taken, in folders of theirs too, sorted by path; lists (``.txt``, or
        ``-`` for standard input) with the path of an image a line, from where the command runs.

    Raises
    ------
    RequestError
        If a folder or a list has no image, or two images would be called the same.
    """
    found: dict[ImageId, Path] = {}
    for path, name in _paths(given):
        called = parse_image_id(path.name) if _COCO_NAME.fullmatch(path.name) else name
        other = found.setdefault(called, path)
        if other is not path and os.path.abspath(other) != os.path.abspath(path):
            raise RequestError(
                f"{other} and {path} would both be called {called} in the captions; caption them into two files, "
                "or name the folder that both are in"
            )
    return list(found.items())


def readable_images(
    images: Sequence[NamedImage], skip_broken: bool, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[NamedImage], dict[Path, str]]:
    """The images that can be read, and of the others why not.

    Parameters
    ----------
    skip_broken
        Go on without those that cannot be read.
    on_progress
        Called with (images checked, all images).

    Raises
    ------
    RequestError
        If one cannot be read, unless they are skipped.
    """
    broken = {path: "its name is not UTF-8" for _, path in images if not _is_utf8(path)}
    broken |= broken_images([path for _, path in images if path not in broken], on_progress)
    if broken and not skip_broken:
        raise RequestError(f"{told_of_broken(broken, len(images))}; replace them, or --skip-broken leaves them out")
    return [(name, path) for name, path in images if path not in broken], broken


def _paths(given: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Files, and what they are called where their name is none of COCO's."""
    for path in given:
        if path.is_dir():
            yield from _of_folder(path)
        elif path == STANDARD_INPUT or path.suffix.lower() == ".txt":
            yield from _of_list(path)
        else:
            yield path, path.as_posix()


def _of_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    found = False
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                found = True
                path = Path(parent, name)
                yield path, path.relative_to(folder).as_posix()
    if not found:
        raise RequestError(f"folder {folder} has no image ({', '.join(ENDINGS)})")


def _of_list(path: Path) -> Iterator[tuple[Path, str]]:
    if path == STANDARD_INPUT:
        name = "the list on standard input"
        text = read_standard_input(name)
    else:
        name, text = f"list {path}", read_text(path, "list")
    images = [check_path(line) for line in text.splitlines() if line.strip()]
    if not any(image.is_file() for image in images):
        raise RequestError(f"{name} names no image that is there; it needs the path of one a line, from this folder")
    yield from ((image, image.as_posix()) for image in images)


def _is_utf8(path: Path) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in str(path))
