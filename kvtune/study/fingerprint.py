"""What the captions and trials of a study depend on; another command is refused with the difference named."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from kvtune.errors import RequestError
from kvtune.schema import Document
from kvtune.spaces import SearchSpace
from kvtune.study.constraints import check_floor
from kvtune.study.search_defaults import SamplerName
from kvtune.study.study_folder import StudyFolder
from kvtune.study.subsets import DEMO
from kvtune.text import command_line, cut_in_its_middle, json_text


def _floor(text: str) -> str:
    try:
        return check_floor(text)
    except RequestError as error:
        raise ValueError(str(error)) from None


Floor = Annotated[str, AfterValidator(_floor)]


class Fingerprint(Document):
    """Everything that a trial's scores or a study's trials depend on: one study has one of these.

    ``subset`` is the sha256 of the tune images' ids, ``dtype`` the weights' type by its torch name.
    ``race_confidence`` is null where trials are not raced; ``min_f1`` and ``min_words`` are floors as
    :func:`kvtune.study.constraints.check_floor` returns them, null for none.
    """

    model: str
    revision: str | None
    prompt: str
    max_new_tokens: int = Field(ge=1)
    subset: str
    method: str
    dtype: str
    seed: int
    sampler: SamplerName
    parallel_trials: int = Field(ge=1)
    space: SearchSpace
    race_confidence: float | None = Field(default=None, gt=0, lt=1)
    min_f1: Floor | None = None
    min_words: Floor | None = None


def model_in_fingerprint(name: str, source: str) -> str:
    """What a fingerprint calls a model: its Hub id or path, ``source``; the demo by its name, wherever kvtune is
    installed."""
    return DEMO if name == DEMO else source


_OPTIONS = {
    "model": "--model", "revision": "--revision", "prompt": "--prompt", "max_new_tokens": "--max-new-tokens",
    "subset": "--images, --subset and --seed", "method": "--method", "dtype": "--dtype", "seed": "--seed",
    "sampler": "--sampler", "parallel_trials": "--parallel-trials", "space": "--space",
    "race_confidence": "--race --race-confidence", "min_f1": "--min-f1", "min_words": "--min-words",
}  # fmt: skip
"""The option that each part of a fingerprint comes from."""


def refuse_difference(
    folder: StudyFolder, begun: Fingerprint, now: dict[str, Any], words: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """Check that a command would continue a study as it was begun.

    Parameters
    ----------
    now
        A fingerprint's fields as plain data, or those of them that are known yet.
    words
        By field, what the study and the command have in words, where the values say nothing to a person.

    Raises
    ------
    RequestError
        If some differ; the message says what to give, and names each that differs with both values.
    """
    before = begun.model_dump(mode="json")
    cures, differences = [], []
    for field in (name for name in before if name in now):
        found = first_difference({field: before[field]}, {field: now[field]})
        if found is None:
            continue
        if words and field in words:
            found = f"{words[field][0]}, but this command has {words[field][1]}"
        value = before[field]
        if field == "dtype":  # quantization is a part of it
            value, _, bits = value.partition("-")
        plain = isinstance(value, str | int | float) and field != "subset"
        option = f"{_OPTIONS[field]} {command_line([str(value)])}" if plain else f"{_OPTIONS[field]} as it was begun"
        if field == "dtype" and bits:
            option += f" --load-in-{bits}"
        if value is None:
            option = "--no-race" if field == "race_confidence" else f"no {_OPTIONS[field]}"
        cures.append(option)
        differences.append(found)
    if differences:
        raise RequestError(
            f"give {', '.join(cures)}, or another --study name: "
            f"study {folder.name} was begun with {'; '.join(differences)}"
        )


def difference_from(begun: Document, now: Mapping[str, Any]) -> str | None:
    """The first field of a document that differs from what a command has, as far as that is known; None for none."""
    return first_difference(begun.model_dump(mode="json", include=set(now)), now)


def first_difference(begun: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first value that differs, as in ``seed 0, but this command has 1``; None where none does."""
    before, after = _flat(begun), _flat(now)
    for key in [*before, *after]:
        if before.get(key) != after.get(key):
            return f"{key} {_shown(before.get(key))}, but this command has {_shown(after.get(key))}"
    return None


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: ``{"space": {"method": "x"}}`` becomes ``{"space.method": "x"}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return "none" if value is None else cut_in_its_middle(json_text(value), 120, 60, 30)
