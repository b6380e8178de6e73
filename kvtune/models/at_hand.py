"""Whether a model's weights are on this machine, before hours of work count on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from kvtune.errors import RequestError
from kvtune.models.base import Family
from kvtune.models.hub import missing_weights
from kvtune.models.loading import family_of_config, locate, read_config


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


def at_hand(name: str) -> AtHand:
    """Find a model's weights without downloading or loading any.

    Parameters
    ----------
    name
        As for :func:`kvtune.models.load_model`.

    Raises
    ------
    RequestError
        If there is no such model, its architecture is not supported, or files are missing; the message has the command
        that gets them.
    """
    family, source, called = locate(name)
    is_local = Path(source).is_dir()
    folder: Path | None = Path(source)
    if not is_local:
        cached = try_to_load_from_cache(source, "config.json")
        folder = Path(cached).parent if isinstance(cached, str) else None
    cure = "copy it again" if is_local else f"fetch them: hf download {source}"
    if folder is None:
        raise RequestError(f"the weights of {name} are not on this machine; {cure}")
    found = family_of_config(family, read_config(folder, source), source)
    if (missing := missing_weights(folder)) is not None:
        raise RequestError(f"{source}: {missing}; {cure}")
    return AtHand(called, found, source)
