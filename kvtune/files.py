"""Reading and writing files so that nobody ever sees half of one."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from kvtune.errors import KvtuneError, RequestError
from kvtune.text import json_text, quoted

_TEMPORARY = ".kvtune-tmp"
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that Linux's file systems take."""


def check_path(path: str | Path) -> Path:
    """Return a path that a file system can hold, its ``~`` expanded; nothing is looked up.

    Raises
    ------
    RequestError
        If a name in it or all of it is too long, or it has bytes that are no UTF-8.
    """
    try:
        whole = str(path).encode()
    except UnicodeEncodeError:
        raise RequestError(f"the path {quoted(path)} is not UTF-8; rename it") from None
    longest = max((len(part.encode()) for part in Path(path).parts), default=0)
    if longest > _LONGEST_NAME or len(whole) > _LONGEST_PATH or b"\0" in whole:
        raise RequestError(f"no file or folder can be called {quoted(path)}: a name has at most {_LONGEST_NAME} bytes")
    with contextlib.suppress(RuntimeError):  # a user that does not exist
        return Path(path).expanduser()
    return Path(path)


def check_writable(path: Path) -> None:
    """Check that a file can be written to a path, without writing anything.

    Raises
    ------
    RequestError
        If it is a folder, or its folder is none, cannot be made or must not be written.
    """
    path = check_path(path).absolute()
    if path.is_dir():
        raise RequestError(f"{path} is a folder; name a file in it")
    existing = next(folder for folder in path.parents if folder.exists())
    if not existing.is_dir():
        raise RequestError(f"cannot write {path}: {existing} is not a folder; name another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise RequestError(f"cannot write {path}: {existing} must not be written; make it writable or name another")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary name and a rename, creating parent folders.

    Raises
    ------
    KvtuneError
        If the folder cannot be written or the disk is full; nothing is left behind.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; see :func:`write_text`."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends without an error.

    Its temporary name follows from ``path``, so that what a killed process left is overwritten by whoever writes the
    same file next; a lock keeps two that live from each other. The file's ``name`` is where it can be read meanwhile.

    Raises
    ------
    KvtuneError
        If the operating system refuses something, in the block too. Nothing is left behind.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(temporary, lambda: os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        with open(temporary, "wb", opener=lambda *_: handle) as file:
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink()  # before the lock is let go: afterwards it may be another's
                raise
    except OSError as error:
        reason = error.strerror or error
        raise KvtuneError(f"cannot write {path}: {reason}; free some space or choose another folder") from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` that gets its name when the block ends without an error.

    What a killed process left of it is removed first, and one that still writes it is waited for; if ``path`` is then
    there, the block should leave the folder empty, which is then removed.

    Raises
    ------
    OSError
        If the folder cannot be made or renamed. Nothing is left behind.
    """
    temporary = _temporary(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def opened() -> int:
        temporary.mkdir(exist_ok=True)
        return os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    handle = _locked(temporary, opened)
    try:
        for left in temporary.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield temporary
        if any(temporary.iterdir()):
            temporary.rename(path)
        else:
            temporary.rmdir()
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # before the lock is let go: afterwards it may be another's
        raise
    finally:
        os.close(handle)


def locked_file(path: Path) -> int:
    """Make a lock file, and folders for it, and hold its lock; it goes when the file is closed or the process ends.

    Returns
    -------
    int
        The open file.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        If it cannot be made.
    """

    def opened() -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    return _locked(path, opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder and below; those of live ones stay."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if not (name.startswith(".") and name.endswith(_TEMPORARY)):
                continue
            with contextlib.suppress(OSError):  # somebody holds it, or it is gone
                path = Path(parent, name)
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(handle), os.stat(path)):  # and not another's by now
                        path.unlink()
                finally:
                    os.close(handle)


def _temporary(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) + len(_TEMPORARY) + 1 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}{_TEMPORARY}")


def _locked(path: Path, opened: Callable[[], int], lock: int = fcntl.LOCK_EX) -> int:
    """An open and locked file or folder that still has the name ``path`` once the lock is there."""
    while True:
        handle = opened()
        try:
            fcntl.flock(handle, lock)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:  # whoever had the lock has renamed or removed it
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as indented JSON; see :func:`write_text`."""
    write_text(path, json_text(document, indent=2) + "\n")


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
