"""Documents that were corrupted where their structure is: values of other kinds, keys gone or new, bytes cut."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

DEEP: Any = "@deep@"
LONG: Any = "@long@"
HALF: Any = "@half@"
RAW = {
    '"@deep@"': "[" * 20_000 + "]" * 20_000,
    '"@long@"': "9" * 5_000,
    '"@half@"': '"\\ud83d"',
}
"""What no Python object stands for, by the text that stands for it until the document is written."""

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 10**30, -(10**30), 0.5, 1e308, float("inf"), float("-inf"), float("nan"),
    "", " ", "²", "1", "-1", "1e5", "nan", "../../x", "a\0b", "\x1b[31m", "[/b]", "x" * 5000, HALF, DEEP, LONG,
    [], {}, [[]], [None], [1, 1], {"": None}, {"a": {"b": []}}, [1.5], ["person", 3],
)  # fmt: skip


def corrupted(document: Any, draw: random.Random) -> bytes:
    """A document with one to three faults, as bytes of JSON that may be none any more."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        document = _with_fault(document, draw)
    text = json.dumps(document)
    for stands, raw in RAW.items():
        text = text.replace(stands, raw)
    data = text.encode()
    if draw.random() < 0.15:
        data = draw.choice(_BYTES)(data, draw)
    return data


def _with_fault(document: Any, draw: random.Random) -> Any:
    places = list(_places(document))
    container, key = draw.choice(places) if places else (None, None)
    if container is None:
        return draw.choice(HOSTILE)
    fault = draw.randrange(10)
    if fault < 6:
        container[key] = copy.deepcopy(draw.choice(HOSTILE))
    elif fault == 6:
        del container[key]
    elif fault == 7 and isinstance(container, dict):
        container[draw.choice(("new", "", "²", "x" * 300, "12", "None"))] = copy.deepcopy(container[key])
    elif fault == 8 and isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    else:
        other, name = draw.choice(places)
        container[key] = copy.deepcopy(other[name])
    return document


def _places(document: Any) -> Any:
    """Every place in a document, as container and key; the places below it after it."""
    pairs: list[Any] = []
    if isinstance(document, dict | list):
        pairs = list(document.items() if isinstance(document, dict) else enumerate(document))
    for key, value in pairs:
        yield document, key
        yield from _places(value)


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, draw: data[: draw.randrange(len(data) + 1)],
    lambda data, draw: b"\xef\xbb\xbf" + data,
    lambda data, draw: data.decode().encode("utf-16"),
    lambda data, draw: data + data,
    lambda data, draw: b"",
    lambda data, draw: _flipped(data, draw),
    lambda data, draw: data.replace(b",", b",\n", 1),
)


def _flipped(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data)) if data else 0
    return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
