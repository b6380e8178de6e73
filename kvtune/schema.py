"""Documents in files, checked so that what is wrong is named in one line, for people write some of them by hand."""

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.json_files import read_json, write_json
from kvtune.text import quoted


class Document(BaseModel):
    """A document that takes no key it does not know and never changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path, what: str) -> Self:
        """Read a JSON file; ``what`` names it in messages ("subset", "preset").

        Raises
        ------
        RequestError
            If it cannot be read, or a key is unknown, missing or wrong.
        """
        return validated(cls, read_json(path, what), f"{what} {path}")

    def save(self, path: str | Path) -> None:
        """Write the document as JSON, whole or not at all.

        Raises
        ------
        KvtuneError
            If the file cannot be written.
        """
        write_json(check_path(path), self.model_dump(mode="json", by_alias=True))


D = TypeVar("D", bound=BaseModel)


def _parameter(value: Any) -> Any:
    if isinstance(value, list):
        return [_parameter(each) for each in value]
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError("a parameter must be a number, a text, true, false, null or a list of them")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a parameter must be a finite number")
    return value


Parameters = dict[str, Annotated[bool | int | float | str | list[Any] | None, PlainValidator(_parameter)]]
"""A method's parameters, as they are written."""


def validated(document: type[D], data: Any, what: str) -> D:
    """Check ``data`` against a pydantic model.

    Parameters
    ----------
    what
        How a message calls it ("preset /tmp/p.json").

    Raises
    ------
    RequestError
        If it does not fit; the message names the first wrong key, and for an unknown one the keys there are.
    """
    try:
        return document.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _keys_beside(document, first["loc"])
            raise RequestError(f"{what}: unknown key {quoted(place)}; the keys are {', '.join(known)}") from None
        if first["type"] == "missing":
            raise RequestError(f"{what}: the key {quoted(place)} is missing") from None
        if first["type"] == "value_error":
            at = f" in {quoted(place)}" if place else ""
            raise RequestError(f"{what}: {first['ctx']['error']}{at}") from None
        got = "" if isinstance(first["input"], dict | list) else f", not {quoted(first['input'])}"
        raise RequestError(f"{what}: {quoted(place) if place else 'it'} must be {wanted(first)}{got}") from None


def wanted(error: Any) -> str:
    """What a value must be, in words; ``error`` is one of pydantic's."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return str(limits["expected"])
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return words.format(limits[name])
    return next((words for start, words in _KINDS if kind.startswith(start)), "something else")


_KINDS = (
    ("int_from_float", "a whole number"),
    ("int", "a whole number"),
    ("finite", "a finite number"),
    ("float", "a number"),
    ("string", "a text"),
    ("bool", "true or false"),
    ("list", "a list"),
    ("tuple", "a list"),
    ("recursion", "something that does not contain itself"),
    ("dict", "an object"),
    ("model", "an object"),
    ("union", "one of its kinds"),
)
_LIMITS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "at most {}"),
    "too_short": ("min_length", "a list of at least {}"),
    "too_long": ("max_length", "a list of at most {}"),
    "string_too_short": ("min_length", "a text of at least {} character"),
}


def _keys_beside(document: type, location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that are allowed where ``location`` points to one that is not."""
    for part in location[:-1]:
        annotation = _keys(document).get(str(part))  # None for a key of a mapping, such as a parameter's name
        document = _document_in(annotation) or document
    return list(_keys(document))


def _keys(document: type) -> dict[str, Any]:
    """The keys of a pydantic model or a dataclass with their annotations."""
    if is_dataclass(document):
        return {field.name: field.type for field in fields(document)}
    assert issubclass(document, BaseModel)
    return {field.alias or name: field.annotation for name, field in document.model_fields.items()}


def _document_in(annotation: Any) -> type | None:
    """The model or dataclass that an annotation (``Model``, ``Model | None``, ``dict[str, Model]``) is about."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _document_in(argument)) is not None:
            return found
    return None
