"""Who writes a study's captions, where workers do: kept beside it for ``kvtune studies`` and nothing else."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError
from kvtune.json_files import write_json
from kvtune.schema import Document

log = logging.getLogger(__name__)

KEEP_SECONDS = 10.0
"""Between two times that it is written."""


class WorkersAtWork(Document):
    """The workers of a search as it last told of them.

    Attributes
    ----------
    in_words
        A line about all of them, then one about each machine and each worker that was lost.
    workers
        Each with ``node``, ``device``, ``captions``, ``captions_a_second``, ``seconds`` at work, and why it was
        ``lost``, or null.
    updated
        ISO 8601.
    """

    in_words: list[str]
    workers: list[dict[str, Any]]
    updated: str


class WorkersFile:
    """The file while a search runs; there is none where one device, and no worker, writes captions.

    Parameters
    ----------
    captioner
        Has ``workers`` that tell what :class:`WorkersAtWork` keeps, if it has any.
    """

    def __init__(self, path: Path, captioner: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._captioner, self._clock = path, captioner, clock
        self._kept = clock()
        if not hasattr(captioner, "workers"):
            path.unlink(missing_ok=True)

    def keep(self, at_once: bool = False) -> None:
        """Write it, unless that was done a moment ago."""
        now = self._clock()
        if hasattr(self._captioner, "workers") and (at_once or now - self._kept >= KEEP_SECONDS):
            self._kept = now
            updated = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(self._path, {**self._captioner.workers, "updated": updated})


def read_workers(path: Path) -> WorkersAtWork | None:
    """What the file says; None if there is none that can be read."""
    if not path.exists():
        return None
    try:
        return WorkersAtWork.read(path, "workers")
    except RequestError as error:
        log.info("%s: %s", path, error)
        return None
