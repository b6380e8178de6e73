"""Where workers run, as the pool sees it: processes, and calls to them that return at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class WorkerDiedError(Exception):
    """A worker's process is gone, or cannot be reached."""


class Backend(Protocol):
    """Processes on some machines, and calls to them that return at once."""

    def places(self) -> int:
        """Workers that there is room for."""

    def launch(self, place: int) -> Any:
        """Begin a worker; its handle."""

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        """Call a method of a worker; a promise of what it returns."""

    def wait(self, promises: Sequence[Any], seconds: float) -> list[Any]:
        """The promises that are kept, as soon as there is one, or none after so many seconds."""

    def result(self, promise: Any) -> Any:
        """What was promised; raises what the method raised, or WorkerDiedError."""

    def kill(self, handle: Any) -> None:
        """End a worker."""

    def close(self) -> None:
        """End all of them."""
