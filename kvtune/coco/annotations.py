"""One COCO annotation file, reduced to what kvtune needs while it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.coco.layout import Kind, fetch_again
from kvtune.coco.records import JSONFormError, read_records
from kvtune.errors import RequestError
from kvtune.json_files import without_half_pairs


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
    root
        The COCO folder that messages tell the user to download to.

    Raises
    ------
    RequestError
        If the file cannot be read, is truncated or is not of this kind.
    """
    cure = fetch_again(root)
    what = f"COCO annotation file {path}"
    try:
        file_names, labels = _reduced(path, kind)
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror or error}") from None
    except JSONFormError as error:
        raise RequestError(f"{what} is not valid JSON: {error}; {cure}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{what} is not UTF-8 text ({error.reason}); {cure}") from None
    except ValueError as error:
        raise RequestError(f"{path} is not a COCO {kind} file ({error}); {cure}") from None
    return Annotations(file_names, labels)


def _reduced(path: Path, kind: Kind) -> tuple[dict[int, str], dict[int, list[str]]]:
    label = "category_id" if kind == "instances" else "caption"
    file_names: dict[int, str] = {}
    names: dict[int, str] = {}
    labels: dict[int, list[Any]] = {}
    for key, record in read_records(path):
        if key not in ("images", "categories", "annotations"):
            continue
        if not isinstance(record, Mapping):
            raise ValueError(f"{key!r} is no list of objects")
        if key == "images":
            file_names[_whole(record, "id")] = _text(record, "file_name")
        elif key == "categories":
            names[_whole(record, "id")] = _text(record, "name")
        else:
            found = _whole(record, label) if kind == "instances" else _text(record, label)
            labels.setdefault(_whole(record, "image_id"), []).append(found)
    if not file_names:
        raise ValueError("it has no images")
    if kind == "instances":
        unknown = next((found for each in labels.values() for found in each if found not in names), None)
        if unknown is not None:
            raise ValueError(f"there is no category {unknown}")
        labels = {image_id: [names[found] for found in each] for image_id, each in labels.items()}
    return file_names, labels


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    raise ValueError(f"an entry has no whole number {key!r}")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, str):
        return str(without_half_pairs(value))
    raise ValueError(f"an entry has no text {key!r}")
