"""Captions to score: files of them, and what an image's id may look like."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError
from kvtune.files import read_json, write_text

# COCO_val2014_000000226988.jpg (2014), 000000226988.jpg (2017)
_FILE_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{1,18})\.(?:jpe?g|png)", re.IGNORECASE)
_MOST_DIGITS = 18  # ids fit 64 bits


def parse_image_id(value: Any) -> int:
    """The COCO id that an int, a string of digits or a COCO file name (with or without its folder) stands for.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**_MOST_DIGITS:
        return value
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
            return int(text)
        if found := _FILE_NAME.fullmatch(re.split(r"[/\\]", text)[-1]):
            return int(found[1])
    raise ValueError(f"{value!r} is no image id: an integer, digits or a COCO file name is")


def caption_of(
    record: Any, place: int, image_key: str = "image_id", caption_key: str = "caption", what: str = "caption"
) -> tuple[int, str]:
    """Image id and text of a caption record.

    Parameters
    ----------
    record
        A mapping with both keys.
    place
        Its place among the records, from 0; a message counts from 1.
    image_key, caption_key
        The keys.
    what
        How a message calls one ("captions.json, caption").

    Raises
    ------
    RequestError
        If a key is missing, the id is none or the caption is no text.
    """
    if not isinstance(record, Mapping):
        raise RequestError(
            f'{what} {place + 1} is no object; {{"{image_key}": 42, "{caption_key}": "..."}} is expected'
        )
    for key, option in ((image_key, "--image-key"), (caption_key, "--caption-key")):
        if key not in record:
            there = ", ".join(map(str, record)) or "none"
            raise RequestError(f'{what} {place + 1} has no "{key}" (its keys: {there}); {option} names another key')
    text = record[caption_key]
    try:
        image_id = parse_image_id(record[image_key])
    except ValueError as error:
        raise RequestError(f'{what} {place + 1}, "{image_key}": {error}') from None
    if not isinstance(text, str):
        raise RequestError(f'{what} {place + 1}, "{caption_key}": text is expected, not {_kind(text)}')
    return image_id, text


def read_captions(path: Path, image_key: str = "image_id", caption_key: str = "caption") -> list[dict[str, Any]]:
    """Read a captions file.

    Parameters
    ----------
    path
        ``.json``, a list of objects, or ``.jsonl``, an object a line. Other keys are left alone.
    image_key, caption_key
        Where an object has the image's id and the caption.

    Returns
    -------
    list of dict
        ``{"image_id": int, "caption": str}`` in the file's order.

    Raises
    ------
    RequestError
        If the file is missing, is neither, holds no captions, or one has no id or no text.
    """
    if path.suffix == ".jsonl":
        records = _read_lines(path)
    elif path.suffix == ".json":
        records = read_json(path, "captions")
        if not isinstance(records, list):
            raise RequestError(f"captions file {path} holds {_kind(records)}; a list of captions is expected")
    else:
        raise RequestError(f"captions file {path} is neither .json nor .jsonl; rename it to what it holds")
    if not records:
        raise RequestError(f"captions file {path} holds no captions")
    captions = []
    for place, record in enumerate(records):
        image_id, text = caption_of(record, place, image_key, caption_key, f"{path}: caption")
        captions.append({"image_id": image_id, "caption": text})
    return captions


def save_details(details: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write what captions mention, as :meth:`~kvtune.chair.ChairScorer.details` has it, a line of JSON a caption."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in details))


def _read_lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise RequestError(f"captions file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"captions file {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"captions file {path} is not UTF-8 text: {error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RequestError(f"captions file {path}, line {number} is not JSON (torn?): {error}") from None
    return records


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")
