"""A checkpoint by its name: where it is, its commit, what its configuration says, and the family that it is of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.models.families.generic import Unnamed
from kvtune.models.families.llava import Llava
from kvtune.models.family import Family
from kvtune.models.hub import fetch_description, models_folder
from kvtune.models.misfit import impossible_size
from kvtune.models.published import MODELS, hub_id_name, published_model
from kvtune.models.registry import family_of, get_family
from kvtune.text import quoted

_HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)


def locate(name: str) -> tuple[Family | None, str, str]:
    """Family (None where the configuration has to say), where the weights are, and what to call the model."""
    folder = check_path(name)
    if name in MODELS:
        family, published = get_family(name), MODELS[name]
        if name == "demo":
            from kvtune.demo import demo_model_path

            return family, str(demo_model_path()), name
        local = models_folder() / name
        if local.is_dir():
            return family, str(local.resolve()), name
        if published.hub_id is None:
            raise RequestError(f"{family.title} is not in {local}; make it with: {published.command}")
        return family, published.hub_id, name
    if name and folder.is_dir():
        folder = folder.resolve()
        return None, str(folder), folder.name
    if not _HUB_ID.fullmatch(name):
        published_model(name)  # says which there are
    return None, name, hub_id_name(name) or name.rsplit("/", 1)[-1]


def description(source: str, revision: str | None) -> tuple[Path, str | None]:
    """A folder with a model's configuration, and the commit that it is of; None for a folder of the user's."""
    if not Path(source).is_dir():
        return fetch_description(source, revision)
    if revision is not None:
        raise RequestError(f"a revision is for weights on the Hub, and {source} is a folder; leave the revision out")
    return Path(source), None


def read_config(folder: Path, source: str) -> dict[str, Any]:
    """A checkpoint's config.json as it is stored; RequestError if there is none or it is no model's."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise RequestError(f"{source} is an adapter (LoRA), not a model; merge it into its base model first")
        raise RequestError(f"{source} holds no config.json, so it is no Hugging Face checkpoint; give its top folder")
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stored = {"model_type": str(stored["model_type"]), **stored}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise RequestError(f"{source}/config.json is not a model's configuration: {error!r}") from error
    if (problem := impossible_size(stored)) is not None:
        raise RequestError(f"{source}/config.json is no model's: {problem}; copy or download it again")
    return stored


def family_of_config(family: Family | None, stored: dict[str, Any], source: str) -> Family:
    """The family that a stored configuration belongs to, which has to be ``family`` where that is given."""
    kind = stored["model_type"]
    found = family_of(kind)
    if isinstance(found, Llava) and _tower(stored) == "pixtral":  # a LLaVA to transformers alone: Pixtral's prompts
        found = Unnamed(kind)
    if found is None:
        why = (
            "whose code comes with it and is not run; take a checkpoint in transformers' own format, often named -hf"
            if "auto_map" in stored
            else "and none of those that transformers loads as image-text-to-text"
        )
        raise RequestError(f"{source} is a {quoted(kind)} model, {why}")
    if family is not None and not isinstance(family, type(found)):
        raise RequestError(f"{source} is a {quoted(kind)} model, not {family.title}")
    family = family or found
    if (reason := family.check(stored)) is not None:
        raise RequestError(f"{source} cannot be used: {reason}")
    return family


def _tower(stored: dict[str, Any]) -> Any:
    """The kind of a checkpoint's vision tower."""
    tower = stored.get("vision_config")
    return tower.get("model_type") if isinstance(tower, dict) else None


def commit_of(name: str | Path, revision: str | None = None) -> str | None:
    """The commit that :func:`kvtune.models.load_model` would load, None for a folder; raises as that does.

    No weights are fetched.
    """
    return description(locate(str(name))[1], revision)[1]
