"""A caption to score: its text, and what its image's id may look like."""

import re
import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

from kvtune.errors import RequestError
from kvtune.text import cut_in_its_middle

_MOST_DIGITS = 18  # ids fit 64 bits
_DIGITS = re.compile(r"(\d{1,18})(?:\.0+)?", re.ASCII)  # 42.0 is how pandas writes the ids of a column with gaps
# COCO_val2014_000000226988.jpg (2014), also without its ending, and 000000226988.jpg (2017)
_FILE_NAME = re.compile(
    r"COCO_(?:train|val|test)\d{4}_(\d{1,18})(?:\.(?:jpe?g|png))?|(\d{1,18})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_LONGEST = 160
"""Characters of a value in a message; lists in lists are more than each of them may be."""


def parse_image_id(value: Any) -> int:
    """The COCO id that a value stands for.

    Parameters
    ----------
    value
        An integer, also written as ``42.0``; a string of digits; or a COCO file name, with or without its folder and
        its ending.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(value, float) and value.is_integer() and 0 <= value < 2**53:
        return int(value)
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < 10**_MOST_DIGITS:
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if found := _DIGITS.fullmatch(text):
            return int(found[1])
        if found := _FILE_NAME.fullmatch(re.split(r"[/\\]", text)[-1]):
            return int(found[1] or found[2])
    raise ValueError(f"{shown(value)} is no image id: a whole number from 0, digits or a COCO file name is")


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
            raise RequestError(
                f'{what} {place + 1} has no "{key}" (its keys: {listed(record)}); {option} names another key'
            )
    text = record[caption_key]
    try:
        image_id = parse_image_id(record[image_key])
    except ValueError as error:
        raise RequestError(f'{what} {place + 1}, "{image_key}": {error}') from None
    if not isinstance(text, str):
        raise RequestError(f'{what} {place + 1}, "{caption_key}": text is expected, not {kind_of(text)}')
    return image_id, text


def kind_of(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


def shown(value: Any) -> str:
    """A value of any size and depth, short enough for a message."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of over 40 digits"
    return cut_in_its_middle(_SHORT.repr(value), _LONGEST, _LONGEST - 40, 37)


def listed(names: Iterable[Any]) -> str:
    """Names from a file in one line of a message, whatever and however many they are."""
    some = [printable(str(name))[:40] for name in islice(names, 10)]
    return ", ".join(some) or "none"


def printable(text: str) -> str:
    """Text of one line without control characters and halves of surrogate pairs."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
