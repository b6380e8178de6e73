"""Files of a study that follow from one another, put in the place of the old ones all at once.

They are written into a folder beside, whose renaming to ``rescored`` is the switch: from then on
:class:`~kvtune.study.study_folder.StudyFolder` finds them there, until they have moved up to where they belong. A
process that is killed before it leaves the old files, one that is killed after it the new ones, and whoever writes the
study next (:func:`kvtune.study.lock.locked`) moves the rest.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from kvtune.errors import KvtuneError
from kvtune.files import new_folder
from kvtune.study.study_folder import StudyFolder

T = TypeVar("T")


@contextlib.contextmanager
def switching(folder: StudyFolder) -> Iterator[StudyFolder]:
    """Where to write new files of a study, which take the place of the old ones when the block ends without an error.

    The caller holds the study's lock.

    Raises
    ------
    KvtuneError
        If the folder cannot be written; the old files are then as they were.
    """
    finish_switch(folder)
    try:
        with new_folder(folder.rescored) as new:
            yield StudyFolder(new)
        finish_switch(folder)
    except OSError as error:
        raise KvtuneError(
            f"cannot write in {folder.path}: {error.strerror or error}; make it writable or free some space"
        ) from error


def finish_switch(folder: StudyFolder) -> None:
    """Move up what a switch that took effect has left in its folder; the caller holds the study's lock."""
    if not folder.rescored.is_dir():
        return
    for new in sorted(folder.rescored.iterdir()):
        old = folder.path / new.name
        for journal in journals(old):
            journal.unlink(missing_ok=True)  # of the old database, and never to be applied to the new one
        new.replace(old)
    folder.rescored.rmdir()


def steadily(folder: StudyFolder, read: Callable[[], T]) -> T:
    """What ``read`` makes of a study's files; read again if a switch took effect meanwhile."""
    while True:
        before = _generation(folder)
        try:
            found = read()
            if _generation(folder) == before:
                return found
        except KvtuneError:
            if _generation(folder) == before:
                raise


def _generation(folder: StudyFolder) -> tuple[int, ...]:
    """What changes when the trials are written anew, and not when one is appended."""
    try:
        status = folder.ledger.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino


def journals(database: Path) -> list[Path]:
    """The files that SQLite keeps beside a database."""
    return [database.with_name(database.name + ending) for ending in ("-journal", "-wal", "-shm")]
