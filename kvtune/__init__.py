"""kvtune tunes KVSmooth, a training-free method against object hallucination in vision-language models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kvtune.methods import KVSmooth as KVSmooth
    from kvtune.presets import load_preset as load_preset

__all__ = ["KVSmooth", "__version__", "load_preset"]

_HOME = {"KVSmooth": "kvtune.methods", "load_preset": "kvtune.presets"}


def __getattr__(name: str) -> Any:
    """Import torch only when something that needs it is asked for."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'kvtune' has no attribute {name!r}")
