"""One process at a time may write a study, or whatever else grows on disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import is_locked, locked_file, remove_leftovers
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import finish_switch


@contextlib.contextmanager
def locked(folder: Path, what: str = "study", other: str = "--study name") -> Iterator[None]:
    """Hold the right to write a study's folder, or another folder of which messages say what it is.

    The lock belongs to the open file, so the operating system lets go of it when the process ends, however it ends:
    a lock file that was left behind blocks nobody. What killed processes left in the folder goes, or takes the place
    that it was on its way to.

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
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        file = locked_file(path)
    except BlockingIOError:
        holder = path.read_text(errors="replace").strip()
        raise RequestError(
            f"{what} {folder.name} is in use by process {holder or '?'}; wait for it, or choose another {other}"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise KvtuneError(
            f"cannot write in {folder}: {reason}; make it writable or choose another --studies-dir"
        ) from error
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        remove_leftovers(folder)
        finish_switch(StudyFolder(folder))
        yield
    finally:
        _remove_empty(made, path)
        os.close(file)


def in_use(folder: Path) -> bool:
    """Whether a process holds the right to write a folder; nothing is written to find out."""
    return is_locked(folder / ".lock")


def _remove_empty(made: list[Path], lock: Path) -> None:
    """Remove folders that were made for the lock and have nothing but it."""
    with contextlib.suppress(OSError):  # another process has put something there
        if made and list(made[0].iterdir()) == [lock]:
            lock.unlink()
            for folder in made:
                folder.rmdir()
