"""One COCO annotation file, reduced to what kvtune needs while it is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.coco.layout import Kind, download_command
from kvtune.coco.records import read_records
from kvtune.errors import RequestError


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
        file_names, labels = _reduced(path, kind)
    except OSError as error:
        raise RequestError(f"COCO annotations {path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RequestError(f"{path} is not a COCO {kind} file ({reason}); {cure}") from None
    except ValueError as error:
        raise RequestError(f"COCO annotations {path} are truncated or not JSON ({error}); {cure}") from None
    return Annotations(file_names, labels)


def _reduced(path: Path, kind: Kind) -> tuple[dict[int, str], dict[int, list[str]]]:
    file_names: dict[int, str] = {}
    categories: dict[Any, str] = {}
    labels: dict[int, list[Any]] = {}
    for key, record in read_records(path):
        if key == "images":
            file_names[int(record["id"])] = str(record["file_name"])
        elif key == "categories":
            categories[record["id"]] = str(record["name"])
        elif key == "annotations":
            label = record["category_id"] if kind == "instances" else str(record["caption"])
            labels.setdefault(int(record["image_id"]), []).append(label)
    if not file_names:
        raise KeyError("images")
    if kind == "instances":
        labels = {image_id: [categories[label] for label in found] for image_id, found in labels.items()}
    return file_names, labels
