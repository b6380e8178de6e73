"""Reading and writing small files so that nobody ever sees half of one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from kvtune.errors import KvtuneError, RequestError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary name and a rename, creating parent folders.

    Raises
    ------
    KvtuneError
        If the folder cannot be written or the disk is full; nothing is left behind.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; see :func:`write_text`."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; give this one the mode an ordinary open() would have given it.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        reason = error.strerror or error
        raise KvtuneError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented JSON; see :func:`write_text`."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; ``what`` names it in the message ("subset", "preset").

    Raises
    ------
    RequestError
        If the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"{what} file {path} cannot be read: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{what} file {path} is not valid JSON (truncated?): {error}") from None
