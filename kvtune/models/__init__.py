"""Model families: how to load them, prompt them, prepare images, and where the visual tokens are."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvtune.models.checkpoint import commit_of, locate
    from kvtune.models.family import Family, VisionLanguageModel
    from kvtune.models.loading import load_model
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.models.registry import all_families, family_of, get_family

__all__ = [
    "EngineOptions",
    "Family",
    "ModelOptions",
    "VisionLanguageModel",
    "all_families",
    "commit_of",
    "family_of",
    "get_family",
    "load_model",
    "locate",
]

_HOME = {
    **dict.fromkeys(["EngineOptions", "ModelOptions"], "options"),
    **dict.fromkeys(["Family", "VisionLanguageModel"], "family"),
    **dict.fromkeys(["commit_of", "locate"], "checkpoint"),
    "load_model": "loading",
    **dict.fromkeys(["all_families", "family_of", "get_family"], "registry"),
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name in _HOME:
        return getattr(import_module(f"kvtune.models.{_HOME[name]}"), name)
    raise AttributeError(f"module 'kvtune.models' has no attribute {name!r}")
