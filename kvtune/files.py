"""Reading and writing files so that nobody ever sees half of one."""

import codecs
import contextlib
import fcntl
import hashlib
import json
import os
import re
import reprlib
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from kvtune.errors import KvtuneError, RequestError
from kvtune.text import json_text, quoted

_TEMPORARY = ".kvtune-tmp"
_LOOKS = 3
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
        raise _cannot_write(path, error) from error


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
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> KvtuneError:
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

    Whoever only looks whether it is held (:func:`is_locked`) is waited for.

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

    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            return _locked(path, opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    return _locked(path, opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of :func:`locked_file`; nothing is written to find out."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


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
    return parse_json(read_text(path, what), f"{what} file {path}")


def read_text(path: Path, what: str) -> str:
    """Read UTF-8 text, with or without a byte order mark.

    Raises
    ------
    RequestError
        If the file is missing, unreadable or other text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RequestError(f"{what} file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"{what} file {path} cannot be read: {error.strerror or error}") from None
    return decode(data, f"{what} file {path}")


def decode(data: bytes, what: str) -> str:
    """UTF-8 text, with or without a byte order mark; ``what`` names it in the message.

    Raises
    ------
    RequestError
        If it is other text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        reason = "UTF-16" if utf_16 else f"byte {error.start} is 0x{data[error.start]:02x}"
        raise RequestError(f"{what} is not UTF-8 text ({reason}); save it as UTF-8") from None


def parse_json(text: str, what: str, *, each_key_once: bool = False) -> Any:
    """The one JSON value of a text; arguments and errors as :func:`parse_json_values`."""
    values = parse_json_values(text, what, each_key_once=each_key_once)
    if len(values) != 1:
        many = f"{len(values)} JSON values stand one after another" if values else "it is empty"
        raise RequestError(f"{what} is not valid JSON: {many}")
    return values[0]


def parse_json_values(text: str, what: str, *, each_key_once: bool = False) -> list[Any]:
    """The JSON values of a text, one after another: one document, JSON lines, or objects over several lines.

    Half of a surrogate pair becomes U+FFFD, so that whatever was read can be printed and written.

    Parameters
    ----------
    what
        How a message calls the text ("subset file /tmp/s.json").
    each_key_once
        Refuse an object that has a key twice, of which JSON keeps the last without a word.

    Raises
    ------
    RequestError
        If something is no JSON, is nested too deeply, has a number of more digits than Python reads, or a key twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise RequestError(f"{what} has the key {reprlib.repr(twice)} twice in one object; keep one")
        return found

    decoder = json.JSONDecoder(object_pairs_hook=once if each_key_once else None)
    values = []
    at = _SPACE.match(text).end()  # type: ignore[union-attr]
    try:
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            values.append(without_half_pairs(value) if _HALF_PAIR.search(text, at, end) else value)
            at = _SPACE.match(text, end).end()  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()):
            raise RequestError(f"{what} is not valid JSON: cut off in the value at {place}") from None
        raise RequestError(f"{what} is not valid JSON: {error.msg}, {place}") from None
    except RecursionError:
        raise RequestError(f"{what} is not read: the value at {_line(text, at)} is nested too deeply") from None
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise RequestError(f"{what} is not read: a number after {_line(text, at)} has over {digits} digits") from None
    return values


_SPACE = re.compile(r"[ \t\r\n]*")
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def without_half_pairs(value: Any) -> Any:
    """What was read from JSON, with U+FFFD for half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [without_half_pairs(each) for each in value]
    if isinstance(value, dict):
        return {without_half_pairs(key): without_half_pairs(each) for key, each in value.items()}
    return value


def _line(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}"
