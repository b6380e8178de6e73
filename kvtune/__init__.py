"""kvtune tunes training-free cures for object hallucination in vision-language models, KVSmooth first."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kvtune.api import ImageCaption as ImageCaption
    from kvtune.api import Study as Study
    from kvtune.api import caption as caption
    from kvtune.api import load_study as load_study
    from kvtune.api import score as score
    from kvtune.api import search as search
    from kvtune.methods import KVSmooth as KVSmooth
    from kvtune.presets import load_preset as load_preset

__all__ = [
    "ImageCaption",
    "KVSmooth",
    "Study",
    "__version__",
    "caption",
    "load_preset",
    "load_study",
    "score",
    "search",
]

_HOME = {
    "ImageCaption": "kvtune.api",
    "caption": "kvtune.api",
    "KVSmooth": "kvtune.methods",
    "Study": "kvtune.api",
    "load_preset": "kvtune.presets",
    "load_study": "kvtune.api",
    "score": "kvtune.api",
}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name == "search":  # the function, and the package of its name
        return import_module("kvtune.search")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'kvtune' has no attribute {name!r}")
