"""Which models there are by name, what each needs, and what of it is on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache

from kvtune.errors import RequestError
from kvtune.models.base import Family
from kvtune.models.hub import missing_weights, models_folder
from kvtune.models.registry import get_family, model_names

State = Literal["here", "incomplete", "missing"]


@dataclasses.dataclass(frozen=True)
class Presence:
    """A model that has a short name.

    Attributes
    ----------
    name, family, title
        Its short name, its family's, and what people call the family.
    billions, gpu_gib
        Parameters in billions, and the GPU memory in GiB that they take in 16 bits; None for the demo.
    hub_id, command
        Its weights' id on the Hub, and the command that gets or makes them; None for the demo, which ships.
    state
        ``here``, ``incomplete`` (some of the weights), or ``missing``.
    path
        The folder they lie in.
    problem
        What is missing of them, in words.
    published_preset
        Name of the preset that ships for it.
    """

    name: str
    family: str
    title: str
    billions: float | None
    gpu_gib: float | None
    hub_id: str | None
    command: str | None
    state: State
    path: Path | None
    problem: str | None
    published_preset: str | None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"path": str(self.path) if self.path else None}


def presences() -> list[Presence]:
    """Every model that has a short name, in the order of the families."""
    return [_presence(name, get_family(name)) for name in model_names()]


def _presence(name: str, family: Family) -> Presence:
    path, hub_id = _folder(name, family), family.hub_ids.get(name)
    problem = _problem(path) if path is not None else None
    return Presence(
        name=name,
        family=family.name,
        title=family.title,
        billions=family.billions.get(name),
        gpu_gib=family.gpu_gib.get(name),
        hub_id=hub_id,
        command=f"hf download {hub_id}" if hub_id else family.how_to_get or None,
        state="missing" if path is None else "incomplete" if problem else "here",
        path=path,
        problem=problem,
        published_preset=family.published_presets.get(name),
    )


def _problem(path: Path) -> str | None:
    try:
        return missing_weights(path)
    except RequestError as error:  # a damaged index
        return str(error)


def _folder(name: str, family: Family) -> Path | None:
    """Where ``load_model`` would take the weights from without downloading any."""
    if name == "demo":
        from kvtune.demo import demo_model_path

        return demo_model_path()
    if (models_folder() / name).is_dir():
        return models_folder() / name
    if name in family.hub_ids:
        cached = try_to_load_from_cache(family.hub_ids[name], "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    return None
