"""One process at a time may write a study, or whatever else grows on disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import remove_leftovers
from kvtune.locks import is_locked, locked_file
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import finish_switch

_ELSEWHERE = {"study": ("--study name", "--studies-dir"), "reproduction": ("--out folder", "--out folder")}
"""By what a folder is: the option that names another one, and the option that names another place for it."""


@contextlib.contextmanager
def locked(folder: Path, what: Literal["study", "reproduction"] = "study", begins: bool = False) -> Iterator[None]:
    """Hold the right to write the folder of a study or a reproduction.

    The lock belongs to the open file, so the operating system lets go of it when the process ends, however it ends:
    a lock file that was left behind blocks nobody. What killed processes left in the folder goes, or takes the place
    that it was on its way to. ``begins`` says that the command may as well begin another one.

    Raises
    ------
    RequestError
        If another process holds it.
    KvtuneError
        If the folder cannot be written.
    """
    path = folder / ".lock"
    other, place = _ELSEWHERE[what]
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        file = locked_file(path)
    except BlockingIOError:
        holder = path.read_text(errors="replace").strip()
        cure = f"wait for it, or choose another {other}" if begins else "wait for it"
        raise RequestError(f"{what} {folder.name} is in use by process {holder or '?'}; {cure}") from None
    except OSError as error:
        reason = error.strerror or error
        raise KvtuneError(f"cannot write in {folder}: {reason}; make it writable or choose another {place}") from error
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
