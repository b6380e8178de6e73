"""Which objects are in an image: from COCO's annotations, and as a file."""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from kvtune.chair.captions import parse_image_id, shown
from kvtune.chair.reader import CaptionReader
from kvtune.chair.vocabulary import load_vocabulary
from kvtune.errors import RequestError
from kvtune.files import write_text
from kvtune.json_files import parse_json, read_text

_LIKE = 0.75
"""How much a word must be like a category's name for that to be offered: 'maple' is no misspelt apple."""


def build_ground_truth(
    categories: Mapping[int, Iterable[str]], captions: Mapping[int, Iterable[str]]
) -> dict[int, set[str]]:
    """Objects in images as CHAIR has them (Rohrbach et al. 2018, section 3).

    Parameters
    ----------
    categories
        Image id to the COCO categories of its instances.
    captions
        Image id to its reference captions. An image in one of the two mappings alone is taken as it is.

    Returns
    -------
    dict
        Image id to the categories of its instances and those that its reference captions mention, in the order of
        ``categories``. Captions are singularised, as for the published ground truth; verbs mention nothing in them.

    Raises
    ------
    RequestError
        If a name is no COCO category.
    """
    truth = {image_id: set(names) for image_id, names in check_ground_truth(categories, "instances").items()}
    reader = CaptionReader(verbs=False)
    for image_id, texts in captions.items():
        mentioned = truth.setdefault(image_id, set())
        for text in texts:
            mentioned.update(reader.read(text).mentions)
    return truth


def save_ground_truth(truth: Mapping[int, Iterable[str]], path: Path) -> None:
    """Write ground truth as ``{"42": ["dog", "person"], ...}``, an image a line, both in order."""
    lines = [f'"{image_id}": {json.dumps(sorted(truth[image_id]))}' for image_id in sorted(truth)]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def load_ground_truth(path: Path) -> dict[int, frozenset[str]]:
    """Read what :func:`save_ground_truth` writes.

    Raises
    ------
    RequestError
        If the file is missing or no such file, holds no images, a key is no image id, two keys are one image, or a name
        is no COCO category.
    """
    what = f"ground-truth file {path}"
    data = parse_json(read_text(path, "ground-truth"), what, each_key_once=True)
    if not isinstance(data, dict):
        raise RequestError(f'{what}: an object is expected, {{"42": ["person", "dog"], ...}}')
    if not data:
        raise RequestError(f"{what} holds no images")
    if {"images", "annotations"} <= data.keys():
        raise RequestError(f"{what} is an annotation file of COCO's; --coco takes the folder that it is in")
    return check_ground_truth(data, what)


def check_ground_truth(
    truth: Mapping[Any, Collection[str]] | Mapping[Any, Any], what: str
) -> dict[int, frozenset[str]]:
    """Ground truth with integer ids, after a check of ids and names.

    Parameters
    ----------
    truth
        Image id (or its digits) to names of COCO categories.
    what
        How a message calls it.

    Raises
    ------
    RequestError
        If a key is no image id, two keys are one image, a value is no collection of names, or a name no COCO category.
    """
    known = load_vocabulary().categories
    allowed = frozenset(known)
    checked: dict[int, frozenset[str]] = {}
    for key, names in truth.items():
        try:
            image_id = parse_image_id(key)
        except ValueError as error:
            raise RequestError(f"{what}: {error}") from None
        if image_id in checked:
            first = next(other for other in truth if parse_image_id(other) == image_id)
            raise RequestError(f"{what}: {shown(first)} and {shown(key)} are one image; keep one of them")
        if isinstance(names, str | Mapping) or not isinstance(names, Iterable):
            raise RequestError(f"{what}: image {key} needs a list of COCO categories, not {shown(names)}")
        present = frozenset(name if isinstance(name, str) else shown(name) for name in names)
        if not present <= allowed:
            raise RequestError(f"{what}: image {key}: {_unknown(min(present - allowed), known)}")
        checked[image_id] = present
    return checked


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=_LIKE)
    hint = f"did you mean {close[0]!r}?" if close else "COCO's 80 category names are allowed, such as 'person' or 'tv'"
    return f"{shown(name)} is no COCO category; {hint}"
