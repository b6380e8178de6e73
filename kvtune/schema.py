"""Documents that people write by hand, checked so that what is wrong is named in one line."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kvtune.errors import RequestError
from kvtune.text import quoted


class Document(BaseModel):
    """A document that takes no key it does not know and never changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


D = TypeVar("D", bound=BaseModel)


def validated(document: type[D], data: Any, what: str) -> D:
    """Check ``data`` against a pydantic model.

    Parameters
    ----------
    document
        The model.
    data
        What was read from the file.
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
        if first["type"] == "extra_forbidden":
            known = _keys_beside(document, first["loc"])
            raise RequestError(f"{what}: unknown key {quoted(place)}; the keys are {', '.join(known)}") from None
        if first["type"] == "missing":
            raise RequestError(f"{what}: the key {quoted(place)} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        at = f" in {quoted(place)}" if place else ""
        got = f", got {quoted(first['input'])}" if place and not isinstance(first["input"], dict | list) else ""
        raise RequestError(f"{what}: {message[0].lower()}{message[1:]}{at}{got}") from None


def _keys_beside(document: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that are allowed where ``location`` points to one that is not."""
    for part in location[:-1]:
        field = document.model_fields.get(str(part))
        if field is None:
            continue  # a key of a mapping, such as a parameter's name
        document = _model_in(field.annotation) or document
    return [field.alias or name for name, field in document.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that an annotation (``Model``, ``Model | None``, ``dict[str, Model]``) is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
