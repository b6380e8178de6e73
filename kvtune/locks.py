"""Locks of open files, which the operating system lets go of when a process ends, however it ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

_LOOKS = 3
"""Times that a lock is tried which is held: perhaps somebody only looks."""


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
            return hold(path, opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    return hold(path, opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


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


def hold(path: Path, opened: Callable[[], int], lock: int = fcntl.LOCK_EX) -> int:
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
