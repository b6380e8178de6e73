"""Stopping on request: Ctrl-C and SIGTERM alike."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM (a job scheduler's way to end a run) raise KeyboardInterrupt, as Ctrl-C does, within the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
