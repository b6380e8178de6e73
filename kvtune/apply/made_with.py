"""What wrote a file of captions, kept in a document beside it, so that none mixes two settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from kvtune.errors import RequestError
from kvtune.json_files import read_json
from kvtune.schema import Document, Parameters, validated
from kvtune.study.fingerprint import difference_from

Format = Literal["kvtune-captions/1"]
FORMAT: Format = get_args(Format)[0]
_FREE = {"format", "preset", "versions", "skipped"}


class Skipped(Document):
    """An image that has no caption, and why."""

    image: str
    reason: str


class MadeWith(Document):
    """``FILE.about.json``: what the captions of ``FILE`` depend on, which one file has once.

    ``model`` and ``dtype`` are as in a study's fingerprint; ``method`` is null for captions without one. Free to change
    are the preset's name, the versions, and ``skipped``, the images that ``--skip-broken`` left out last.
    """

    format: Format
    model: str
    revision: str | None
    dtype: str
    method: str | None
    parameters: Parameters
    prompt: str
    max_new_tokens: int = Field(ge=1)
    preset: str | None
    versions: dict[str, str]
    skipped: list[Skipped] = Field(default_factory=list)

    def refuse_difference(self, out: Path, now: Mapping[str, Any]) -> None:
        """Check that a command would go on with a file as it was begun.

        Parameters
        ----------
        now
            Fields as plain data; those that are not there are not known yet.

        Raises
        ------
        RequestError
            If one differs; the message names the first with both values.
        """
        if found := difference_from(self, {name: value for name, value in now.items() if name not in _FREE}):
            raise RequestError(f"{out} was written with {found}; ask as before, or name another --out")


def about(out: Path) -> Path:
    """Where it is kept what wrote the captions of ``out``."""
    return out.with_name(f"{out.name}.about.json")


def load_made_with(out: Path) -> MadeWith | None:
    """What wrote the captions of ``out``; None if there are none.

    Raises
    ------
    RequestError
        If the document cannot be read, or is not there beside captions.
    """
    path = about(out)
    if not out.exists() or not out.stat().st_size:
        return None
    if not path.exists():
        raise RequestError(
            f"{out} is there already, and {path.name}, which says what wrote it, is not beside it; name another --out"
        )
    return validated(MadeWith, read_json(path, "captions"), f"{path}")
