"""One process at a time may write a study, or whatever else grows on disk."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kvtune.errors import KvtuneError, RequestError


@contextlib.contextmanager
def locked(folder: Path, what: str = "study", other: str = "--study name") -> Iterator[None]:
    """Hold the right to write a study's folder, or another folder of which messages say what it is.

    The lock belongs to the open file, so the operating system lets go of it when the process ends, however it ends:
    a lock file that was left behind blocks nobody.

    Parameters
    ----------
    what, other
        How messages call the folder, and the option that names another.

    Raises
    ------
    RequestError
        If another process holds it.
    KvtuneError
        If the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = error.strerror or error
        raise KvtuneError(
            f"cannot write in {folder}: {reason}; make it writable or choose another --studies-dir"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip()
            raise RequestError(
                f"{what} {folder.name} is in use by process {holder or '?'}; wait for it, or choose another {other}"
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)
