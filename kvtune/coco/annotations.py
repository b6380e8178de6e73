"""One COCO annotation file, reduced to what kvtune needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.coco.layout import Kind, download_command
from kvtune.errors import RequestError
from kvtune.files import decode, parse_json


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
    what = f"COCO annotation file {path}"
    try:
        data = parse_json(decode(path.read_bytes(), what), what)
    except OSError as error:
        raise RequestError(f"{what} cannot be read: {error.strerror or error}") from None
    except RequestError as error:
        raise RequestError(f"{error}; {cure}") from None
    try:
        images = _objects(data, "images")
        if not images:
            raise ValueError("it has no images")
        file_names = {_whole(image, "id"): _text(image, "file_name") for image in images}
        label: Callable[[Mapping[str, Any]], str]
        if kind == "instances":
            names = {_whole(each, "id"): _text(each, "name") for each in _objects(data, "categories")}

            def label(annotation: Mapping[str, Any]) -> str:
                category = _whole(annotation, "category_id")
                if category not in names:
                    raise ValueError(f"there is no category {category}")
                return names[category]

        else:

            def label(annotation: Mapping[str, Any]) -> str:
                return _text(annotation, "caption")

        labels: dict[int, list[str]] = {}
        for annotation in _objects(data, "annotations"):
            labels.setdefault(_whole(annotation, "image_id"), []).append(label(annotation))
    except ValueError as error:
        raise RequestError(f"{path} is not a COCO {kind} file ({error}); {cure}") from None
    return Annotations(file_names, labels)


def _objects(data: Any, key: str) -> list[Mapping[str, Any]]:
    found = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(found, list):
        raise ValueError(f"it has no list {key!r}")
    place = next((place for place, each in enumerate(found) if not isinstance(each, Mapping)), None)
    if place is not None:
        raise ValueError(f"entry {place} of {key!r} is no object")
    return found


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    raise ValueError(f"an entry has no whole number {key!r}")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, str):
        return value
    raise ValueError(f"an entry has no text {key!r}")
