"""Checkpoints as files: fetching them from the Hub at one commit, and seeing what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import cache_folder
from kvtune.text import quoted

DESCRIPTION = ["*.json", "*.model", "*.txt", "*.jinja"]
"""Everything but the weights."""
_KINDS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""One file with all weights, and the list of the files that they are in otherwise; transformers' first choice first."""


def models_folder() -> Path:
    """Where converted and copied models are looked for: ``$KVTUNE_MODELS``, else ``~/.cache/kvtune/models``."""
    return cache_folder("KVTUNE_MODELS", "models")


def fetch_description(repo_id: str, revision: str | None) -> tuple[Path, str]:
    """Configuration and tokenizer of a Hub repository: the folder they lie in, and the commit they are of.

    Only what the cache lacks is downloaded; without a network, the cache's newest commit is taken.

    Raises
    ------
    RequestError
        If the repository or the revision does not exist or may not be read, or the Hub cannot be reached and the
        files are not in the cache.
    KvtuneError
        If the download breaks off.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        cached = try_to_load_from_cache(repo_id, "config.json", revision=revision)
        if isinstance(cached, str) and missing_weights(Path(cached).parent) is None:
            return Path(cached).parent, revision  # a commit never changes, so the Hub need not be asked
    folder = _download(repo_id, revision, DESCRIPTION)
    return folder, folder.name


def fetch_weights(repo_id: str, folder: Path) -> None:
    """Download the weights that a folder of :func:`fetch_description` lacks; raises as that does."""
    for single, index in _KINDS:
        if missing_weights(folder) is not None:
            names = [path.name for path in _shards(folder / index)] if (folder / index).is_file() else [single]
            _download(repo_id, folder.name, names)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, whether they are there or not."""
    for single, index in _KINDS:
        if (folder / index).is_file():
            return _shards(folder / index)
        if (folder / single).is_file():
            return [folder / single]
    return [folder / _KINDS[0][0]]


def _shards(index: Path) -> list[Path]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if odd := [name for name in shards if not isinstance(name, str) or name != Path(name).name]:
            raise ValueError(f"{quoted(odd[0])} is no file's name")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{index} is damaged: {error!r}; copy or download it again") from error
    return [index.parent / name for name in sorted(shards)]


def missing_weights(folder: Path) -> str | None:
    """What is missing of a checkpoint's weights, in words; None if every file is there."""
    files = weight_files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        return f"{len(missing)} of {len(files)} weight files are missing: {', '.join(missing[:3])}" + (
            ", ..." if len(missing) > 3 else ""
        )
    pointers = [file.name for file in files if is_pointer(file)]
    if pointers:
        return f"{pointers[0]} is a Git LFS pointer, not weights; run git lfs pull in that folder"
    return None


def is_pointer(file: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of a large one that it has not fetched."""
    return file.stat().st_size <= 1024 and file.read_bytes().startswith(b"version https://git-lfs")


def _download(repo_id: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except RevisionNotFoundError:
        raise RequestError(
            f"{repo_id} has no revision {quoted(revision)}; see its branches, tags and commits on the Hub"
        ) from None
    except GatedRepoError:
        raise RequestError(
            f"{repo_id} is gated: accept its terms on its Hub page, then log in with hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise RequestError(
            f"{repo_id} is not on the Hub, or is private: check the spelling, or log in with hf auth login"
        ) from None
    except HFValidationError as error:
        raise RequestError(f"{quoted(repo_id)} is neither a folder nor a Hub id: {error}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        at = f" --revision {revision}" if revision else ""
        raise RequestError(
            f"the Hub cannot be reached and {repo_id} is not, or not wholly, in the local cache; where there is a "
            f"network run `hf download {repo_id}{at}`, or put its files into a folder and give the folder's path"
        ) from None
    except Exception as error:  # the client's own network errors have changed their classes with its versions
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise KvtuneError(f"cannot download {repo_id}: {reason[:200]}; try again, what is there is kept") from error
