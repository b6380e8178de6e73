"""Files of captions, in the layouts that evaluations of captioners write."""

import csv
import io
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.chair.captions import caption_of, listed, parse_image_id
from kvtune.chair.vocabulary import load_vocabulary
from kvtune.errors import RequestError
from kvtune.files import write_text
from kvtune.json_files import STANDARD_INPUT, parse_json_values, read_standard_input, read_text
from kvtune.text import json_text

# Names that evaluations give to the two fields, the likelier first.
_IMAGE_NAMES = ("image_id", "image", "img_id", "image_file", "image_path", "img_path", "file_name", "filename",
                "image_name", "img", "id", "question_id")  # fmt: skip
_CAPTION_NAMES = ("caption", "text", "answer", "response", "output", "prediction", "pred", "generated_text",
                  "generated_caption", "description", "model_answer", "filtered_resps", "resps", "outputs", "answers",
                  "captions")  # fmt: skip
_NO_CAPTIONS = ("question", "prompt", "query", "instruction", "target", "input", "arguments", "model_id", "model")
_DEEPEST = 4


@dataclass(frozen=True)
class CaptionsFile:
    """Captions as they were read.

    Attributes
    ----------
    name
        What messages call the file.
    captions
        ``{"image_id": int, "caption": str}`` in the file's order, with ``finish_reason`` where the file has it.
    fields
        The fields of its first record.
    """

    name: str
    captions: list[dict[str, Any]]
    fields: tuple[str, ...]


def read_captions(path: Path, image_key: str = "image_id", caption_key: str = "caption") -> list[dict[str, Any]]:
    """The captions of a file; see :func:`read_captions_file`."""
    return read_captions_file(path, image_key, caption_key).captions


def read_captions_file(path: Path, image_key: str = "image_id", caption_key: str = "caption") -> CaptionsFile:
    """Read captions.

    Parameters
    ----------
    path
        A file, or ``-`` for standard input: JSON, JSON lines (also of objects over several lines), CSV or TSV with a
        header. What it holds decides, not its ending. JSON may be a list of records, an object that maps image ids to
        captions or to records, or one that has a list of records among its values, as COCO's results have. Other
        fields are left alone.
    image_key, caption_key
        Where a record has the image's id and the caption; ``doc.question_id`` is a field of a field, ``resps.0`` the
        first of a list. A list of texts is as many captions of the image.

    Raises
    ------
    RequestError
        If the file is missing, is none of these, holds no captions, or one has no id or no text. Where other fields
        look like them, the message has the options that read them.
    """
    if path == STANDARD_INPUT:
        name = "captions of standard input"
        text = read_standard_input(name)
    else:
        name = f"captions file {path}"
        text = read_text(path, "captions")
    records = _records(text, path.suffix, name, image_key, caption_key)
    if not records:
        raise RequestError(f"{name} holds no captions")
    captions = []
    for place, record in enumerate(records):
        image_id, texts = _read_record(record, place, image_key, caption_key, f"{name}: caption")
        reason = record.get("finish_reason")
        known = {"finish_reason": reason} if isinstance(reason, str) else {}
        captions += [{"image_id": image_id, "caption": text, **known} for text in texts]
    return CaptionsFile(name, captions, tuple(_leaves(records[0])))


def save_details(details: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write what captions mention, as :meth:`~kvtune.chair.ChairScorer.details` has it, a line of JSON a caption."""
    write_text(path, "".join(json_text(line) + "\n" for line in details))


def _read_record(record: Any, place: int, image_key: str, caption_key: str, what: str) -> tuple[int, list[str]]:
    """Image id and captions of one record."""
    if not isinstance(record, Mapping):
        caption_of(record, place, image_key, caption_key, what)  # says what is expected
    found = {key: value for key in (image_key, caption_key) if (value := _field(record, key)) is not None}
    missing = [key for key in (image_key, caption_key) if key not in found and key not in record]
    if missing:
        keys = " and ".join(f'"{key}"' for key in missing)
        options = _options(record, image_key, caption_key)
        cure = f"write {options}" if options else "--image-key and --caption-key name others"
        raise RequestError(f"{what} {place + 1} has no {keys}; {cure} (its fields: {listed(_leaves(record))})")
    image, text = found.get(image_key), found.get(caption_key)
    pairs = [
        caption_of({image_key: image, caption_key: each}, place, image_key, caption_key, what)
        for each in _texts(text) or [text]
    ]
    return pairs[0][0], [each for _, each in pairs]


def _records(text: str, ending: str, name: str, image_key: str, caption_key: str) -> Sequence[Any]:
    if text.lstrip()[:1] in ("[", "{") or ending in (".json", ".jsonl"):
        values = parse_json_values(text, name, each_key_once=True)
        return [record for value in values for record in _records_in(value, name, image_key, caption_key)]
    return _table(text, name, ending, image_key, caption_key)


def _records_in(value: Any, name: str, image_key: str, caption_key: str) -> Sequence[Any]:
    """The records of one JSON value."""
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping) or any(_has(value, key) for key in (image_key, caption_key)):
        return [value]
    if value and all(map(_is_image_id, value)):
        _refuse_ground_truth(value, name)
        return [
            {**each, image_key: key} if isinstance(each, Mapping) else {image_key: key, caption_key: each}
            for key, each in value.items()
        ]
    lists = [each for each in value.values() if isinstance(each, list) and each and isinstance(each[0], Mapping)]
    with_captions = [each for each in lists if _has(each[0], caption_key)]
    for found in (with_captions, lists):
        if len(found) == 1:
            return found[0]
    return [value]


def _refuse_ground_truth(value: Mapping[str, Any], name: str) -> None:
    categories = load_vocabulary().categories
    if all(isinstance(each, list) and all(text in categories for text in each) for each in value.values()):
        raise RequestError(f"{name} holds categories of images: it is a ground truth, which --ground-truth takes")


def _table(text: str, name: str, ending: str, image_key: str, caption_key: str) -> list[dict[str, str]]:
    """The rows of CSV or TSV, by their header."""
    header = text.split("\n", 1)[0]
    keys = (image_key, caption_key)
    separators = sorted("\t,;", key=lambda each: (ending == ".tsv" and each == "\t", header.count(each)), reverse=True)
    separator = next((each for each in separators if {*keys} <= {*_cells(header, each)}), separators[0])
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(lines.line_num, cells) for cells in lines if cells]
    except csv.Error as error:
        raise RequestError(f"{name}, line {lines.line_num} is no table: {error}") from None
    if not rows:
        return []
    names = [cell.strip() for cell in rows[0][1]]
    _check_header(names, rows[1][1] if len(rows) > 1 else [], name, keys)
    for number, cells in rows:
        if len(cells) != len(names):
            raise RequestError(
                f"{name}, line {number} has {len(cells)} fields and the header {len(names)}; "
                f"put captions that hold {separator!r} in double quotes"
            )
    return [dict(zip(names, cells, strict=True)) for _, cells in rows[1:]]


def _check_header(names: list[str], first_row: list[str], name: str, keys: tuple[str, str]) -> None:
    wrong = next((key for key in keys if names.count(key) != 1), None)
    if wrong is None:
        return
    options = _options(dict(zip(names, first_row, strict=False)), *keys)
    cure = f"write {options}" if options else "--image-key and --caption-key name others"
    raise RequestError(
        f'{name} is no JSON, and as a table has the column "{wrong}" {"twice" if wrong in names else "not"} in its '
        f"header ({listed(names)}); {cure}, or give JSON, JSON lines, CSV or TSV with a header"
    )


def _cells(header: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error:
        return []


def _has(record: Mapping[str, Any], key: str) -> bool:
    return key in record or _field(record, key) is not None


def _field(record: Mapping[str, Any], key: str) -> Any:
    """A record's field, or a field of its fields; None where there is none."""
    if key in record:
        return record[key]
    value: Any = record
    for part in key.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part in map(str, range(min(len(value), 100))):
            value = value[int(part)]
        else:
            return None
    return value


def _texts(value: Any, depth: int = 0) -> list[Any]:
    """The texts of a text or of a list of them; empty for an empty list."""
    if isinstance(value, list) and depth < _DEEPEST:
        return [text for each in value for text in _texts(each, depth + 1)]
    return [value]


def _leaves(record: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Fields of a record and of its objects, by dotted names."""
    found: dict[str, Any] = {}
    for key, value in list(record.items())[:30]:
        if isinstance(value, Mapping) and value and depth < _DEEPEST:
            found |= {f"{key}.{name}": each for name, each in _leaves(value, depth + 1).items()}
        else:
            found[str(key)] = value
    return found


def _options(record: Mapping[str, Any], image_key: str, caption_key: str) -> str:
    """Options that read a record's likeliest fields; empty where one of the two is not to be seen."""
    leaves = {name: value for name, value in _leaves(record).items() if len(name) <= 60 and name.isprintable()}
    image = image_key if _has(record, image_key) else next(_image_fields(leaves), None)
    caption = caption_key if _has(record, caption_key) else next(_caption_fields(leaves), None)
    if image is None or caption is None:
        return ""
    options = (("--image-key", image, image_key), ("--caption-key", caption, caption_key))
    return " ".join(f"{option} {shlex.quote(found)}" for option, found, asked in options if found != asked)


def _image_fields(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Fields that may be the image's: COCO file names first, then ids under a usual name."""
    fits = [name for name, value in leaves.items() if _is_image_id(value)]
    yield from (name for name in fits if isinstance(leaves[name], str) and not leaves[name].isdigit())
    yield from sorted((name for name in fits if _rank(name, _IMAGE_NAMES) < len(_IMAGE_NAMES)), key=_by(_IMAGE_NAMES))


def _caption_fields(leaves: Mapping[str, Any]) -> Iterator[str]:
    """Fields that may be the caption: texts under a usual name first, then those of several words."""
    fits = []
    for name, value in leaves.items():
        texts = _texts(value)
        text = texts[0] if texts else None
        if not isinstance(text, str) or _is_image_id(text) or name.split(".")[-1] in _NO_CAPTIONS:
            continue
        if " " in text.strip() or _rank(name, _CAPTION_NAMES) < len(_CAPTION_NAMES):
            fits.append(name)
    yield from sorted(fits, key=_by(_CAPTION_NAMES))


def _by(names: Sequence[str]) -> Any:
    return lambda name: _rank(name, names)


def _rank(name: str, names: Sequence[str]) -> int:
    last = name.split(".")[-1].lower()
    return names.index(last) if last in names else len(names)


def _is_image_id(value: Any) -> bool:
    try:
        parse_image_id(value)
    except ValueError:
        return False
    return True
