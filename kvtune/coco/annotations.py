"""One COCO annotation file, read through pycocotools and reduced to what kvtune needs."""

import contextlib
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.coco.layout import Kind, download_command
from kvtune.errors import RequestError

_stdout_lock = threading.Lock()


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says of its images.

    Attributes
    ----------
    file_names
        Image id to file name, for every image that the file lists, annotated or not.
    labels
        Image id to the category name of each of its instances, or to its reference captions, in the order of the
        file; images without annotations are left out.
    """

    file_names: dict[int, str]
    labels: dict[int, list[str]]


def read_annotations(path: Path, kind: Kind, root: Path) -> Annotations:
    """Read an annotation file.

    Parameters
    ----------
    path
        The file.
    kind
        What is in it.
    root
        The COCO folder that messages tell the user to download to.

    Raises
    ------
    RequestError
        If the file cannot be read, is truncated or is not of this kind.
    """
    cure = f"delete the file and fetch it again: {download_command(root)}"
    try:
        coco = _load_quietly(path)
        file_names = {int(image_id): str(image["file_name"]) for image_id, image in coco.imgs.items()}
        if not file_names:
            raise KeyError("images")
        if kind == "instances":
            names = {category_id: str(category["name"]) for category_id, category in coco.cats.items()}
            labels = _labels(coco, lambda annotation: names[annotation["category_id"]])
        else:
            labels = _labels(coco, lambda annotation: str(annotation["caption"]))
    except OSError as error:
        raise RequestError(f"COCO annotations {path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RequestError(f"{path} is not a COCO {kind} file ({reason}); {cure}") from None
    except ValueError as error:
        raise RequestError(f"COCO annotations {path} are truncated or not JSON ({error}); {cure}") from None
    return Annotations(file_names, labels)


def _load_quietly(path: Path) -> Any:
    from pycocotools.coco import COCO

    # pycocotools prints what it does to stdout, where results go. Redirecting swaps a global, hence the lock.
    with _stdout_lock, contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def _labels(coco: Any, label: Callable[[dict[str, Any]], str]) -> dict[int, list[str]]:
    return {
        int(image_id): [label(annotation) for annotation in annotations]
        for image_id, annotations in coco.imgToAnns.items()
    }
