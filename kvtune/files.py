"""Files and folders that are whole or not there, whoever is killed when."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from kvtune.errors import KvtuneError, RequestError
from kvtune.locks import hold
from kvtune.text import quoted

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
        raise RequestError(f"the path {quoted(path)} is not UTF-8; name it in UTF-8") from None
    longest = max((len(part.encode()) for part in Path(path).parts), default=0)
    if longest > _LONGEST_NAME or len(whole) > _LONGEST_PATH or b"\0" in whole:
        raise RequestError(f"no file or folder can be called {quoted(path)}: a name has at most {_LONGEST_NAME} bytes")
    with contextlib.suppress(RuntimeError):  # a user that does not exist
        return Path(path).expanduser()
    return Path(path)


def cache_folder(variable: str = "KVTUNE_CACHE", below: str = "") -> Path:
    """The folder that a variable of the environment names, else ``~/.cache/kvtune`` or one below it.

    That of ``KVTUNE_CACHE`` keeps the demo's scenes.
    """
    return check_path(os.environ.get(variable) or Path.home() / ".cache" / "kvtune" / below)


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
    if is_special(path):
        if not os.access(path, os.W_OK):
            raise RequestError(f"cannot write {path}: it must not be written; name another place")
        return
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
    What is no file, as ``/dev/stdout`` or a pipe, stays in its place and is written to.

    Raises
    ------
    KvtuneError
        If the operating system refuses something, in the block too. Nothing is left behind.
    """
    if is_special(path):
        with _written_to(path) as whole:
            yield whole
        return
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = hold(temporary, lambda: os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
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
        raise cannot_write(path, error) from error


def is_special(path: Path) -> bool:
    """Whether there is a device or a pipe, which a file must not take the place of."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _written_to(path: Path) -> Iterator[BinaryIO]:
    """A file whose contents go to a device or a pipe when the block ends without an error."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            yield cast("BinaryIO", file)
            file.flush()
            file.seek(0)
            with path.open("wb") as out:
                shutil.copyfileobj(file, out)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> KvtuneError:
    """The error that a file could not be written, with what may be done."""
    reason = error.strerror or error
    return KvtuneError(f"cannot write {path}: {reason}; free some space, make it writable or choose another folder")


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

    handle = hold(temporary, opened)
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


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that killed processes left in a folder and below; those of live ones stay."""
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            if not (name.startswith(".") and name.endswith(_TEMPORARY)):
                continue
            with contextlib.suppress(OSError):  # somebody holds it, or it is gone
                path = Path(parent, name)
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(handle), os.stat(path)):  # and not another's by now
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                finally:
                    os.close(handle)


def _temporary(path: Path) -> Path:
    name = path.name
    if len(os.fsencode(name)) + len(_TEMPORARY) + 1 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}{_TEMPORARY}")
