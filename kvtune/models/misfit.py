"""Parts of a checkpoint that are damaged or do not fit each other: told in a line, whatever transformers says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kvtune.device_errors import failure_anywhere, is_lost, is_out_of_memory
from kvtune.errors import KvtuneError, RequestError
from kvtune.models.hub import is_pointer
from kvtune.text import first_line, quoted

_MOST = {"num_hidden_layers": 1000, "depth": 1000, "vocab_size": 10_000_000}
_MOST |= dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"), 1_000_000)
"""Above these, a number in a configuration is an error; a model of 100,000 layers would be built for minutes."""

_SMALL_FILES = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "generation_config.json")
_SENTENCEPIECE = ("tokenizer.model", "spiece.model")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def impossible_size(stored: Any, place: str = "") -> str | None:
    """What no model's configuration says of its sizes, at any depth; None if there is nothing of the kind."""
    if not isinstance(stored, dict):
        return None
    for name, value in stored.items():
        most = _MOST.get(name)
        if most is not None and value is not None and not (type(value) is int and 0 < value <= most):
            return f"{place}{name} is {quoted(value)}, not a whole number from 1 to {most}"
        if (problem := impossible_size(value, f"{place}{name}.")) is not None:
            return problem
    return None


def check_small_files(folder: Path) -> None:
    """Refuse small files of a checkpoint that transformers passes over in silence, or fails on without naming them."""
    for name in _SMALL_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{path} is no JSON: {first_line(error)}; copy or download it again") from error
        if not isinstance(stored, dict):
            raise RequestError(f"{path} is no JSON object; copy or download it again")
        kind = stored.get("tokenizer_class")
        if kind is not None and not isinstance(kind, str):
            raise RequestError(f"{path} names {quoted(kind)} as its tokenizer_class; copy or download it again")


def damaged_file(folder: Path) -> str | None:
    """Which file of a checkpoint that does not load is missing or damaged, and the cure; None if none is seen to be."""
    tokenizer = folder / "tokenizer.json"
    if not any((folder / name).is_file() for name in _TOKENIZERS) and not any(folder.glob("*.tiktoken")):
        return "it has no tokenizer (tokenizer.json or tokenizer.model); copy or download it again"
    of_sentencepiece = not tokenizer.is_file() and any((folder / name).is_file() for name in _SENTENCEPIECE)
    if of_sentencepiece and find_spec("sentencepiece") is None:
        return "its tokenizer is SentencePiece's alone: pip install sentencepiece protobuf"
    if tokenizer.is_file() and is_pointer(tokenizer):
        return "its tokenizer.json is a Git LFS pointer; run git lfs pull in that folder"
    damaged = [tokenizer] if tokenizer.is_file() and not _is_tokenizer(tokenizer) else []
    damaged += [path for path in sorted(folder.glob("*.safetensors")) if not _are_weights(path)]
    return f"its {damaged[0].name} is damaged; copy or download it again" if damaged else None


def _is_tokenizer(path: Path) -> bool:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stored, dict) and {"model", "added_tokens"} <= stored.keys()


def _are_weights(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as weights:
            return bool(weights.keys())
    except (OSError, SafetensorError):
        return False


@contextmanager
def in_a_line(
    what: str, but: tuple[type[Exception], ...] = (), folder: Path | None = None, on_device: bool = False
) -> Iterator[None]:
    """Make of any error in the block, but for some and those of a device, a RequestError that begins with ``what``.

    It goes on with the damaged file of ``folder``, where that is given and has one, else with what the error says. With
    ``on_device``, of a device's errors only a lack of memory and its loss go through.
    """
    try:
        yield
    except Exception as error:
        of_device = is_lost(error) or is_out_of_memory(error) or (not on_device and failure_anywhere(error) is not None)
        if of_device or isinstance(error, (KvtuneError, MemoryError, *but)):
            raise
        damage = damaged_file(folder) if folder else None
        raise RequestError(f"{what}: {damage or first_line(error)}") from error
