"""Which models there are by name, what each needs, and whether its weights are on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub import try_to_load_from_cache

from kvtune.errors import RequestError
from kvtune.models.hub import missing_weights, models_folder
from kvtune.models.published import PUBLISHED, PublishedModel

if TYPE_CHECKING:
    from kvtune.models.family import Family


@dataclasses.dataclass(frozen=True)
class AtHand:
    """A model that can be loaded without a network.

    Attributes
    ----------
    name
        What to call it: its short name, its folder's or the last part of its Hub id.
    source
        Absolute path or Hub id, as :attr:`kvtune.models.VisionLanguageModel.model_id` will be.
    """

    name: str
    family: Family
    source: str


def at_hand(name: str, revision: str | None = None) -> AtHand:
    """Find a model's weights without downloading or loading any.

    Parameters
    ----------
    name, revision
        As for :func:`kvtune.models.load_model`.

    Raises
    ------
    RequestError
        If there is no such model, its architecture is not supported, or files are missing; the message has the command
        that gets them.
    """
    from kvtune.models.checkpoint import family_of_config, locate, read_config

    family, source, called = locate(name)
    is_local = Path(source).is_dir()
    folder: Path | None = Path(source)
    if not is_local:
        cached = try_to_load_from_cache(source, "config.json", revision=revision)
        folder = Path(cached).parent if isinstance(cached, str) else None
    at = f" --revision {revision}" if revision else ""
    cure = "copy it again" if is_local else f"fetch them: hf download {source}{at}"
    if folder is None:
        raise RequestError(f"the weights of {name} are not on this machine; {cure}")
    found = family_of_config(family, read_config(folder, source), source)
    if (missing := missing_weights(folder)) is not None:
        raise RequestError(f"{source}: {missing}; {cure}")
    return AtHand(called, found, source)


def check_known(name: str) -> None:
    """Refuse a model that cannot be had, as far as this machine knows: an unknown name, a folder that is no checkpoint.

    A model on the Hub is taken to be there.
    """
    from kvtune.models.checkpoint import locate

    if Path(locate(name)[1]).is_dir():
        at_hand(name)


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
    return [_presence(published) for published in PUBLISHED]


def _presence(published: PublishedModel) -> Presence:
    path = _folder(published)
    problem = _problem(path) if path is not None else None
    return Presence(
        name=published.name,
        family=published.family,
        title=published.title,
        billions=published.billions,
        gpu_gib=published.gpu_gib,
        hub_id=published.hub_id,
        command=published.command,
        state="missing" if path is None else "incomplete" if problem else "here",
        path=path,
        problem=problem,
        published_preset=published.preset,
    )


def _problem(path: Path) -> str | None:
    try:
        return missing_weights(path)
    except RequestError as error:  # a damaged index
        return str(error)


def _folder(published: PublishedModel) -> Path | None:
    """Where ``load_model`` would take the weights from without downloading any."""
    if published.name == "demo":
        from kvtune.demo import demo_model_path

        return demo_model_path()
    if (models_folder() / published.name).is_dir():
        return models_folder() / published.name
    if published.hub_id is not None:
        cached = try_to_load_from_cache(published.hub_id, "config.json")
        if isinstance(cached, str):
            return Path(cached).parent
    return None
