"""Telling workers that hang from workers that are slow, by how quick all of them were. The caller has the clock."""

from __future__ import annotations

from collections.abc import Hashable

FIRST_SECONDS = 900.0
"""Until a worker's first sign of work, for which kernels may have to be built."""

LEAST_SECONDS = 30.0
"""No worker hangs that was silent for less than this."""

TIMES_THE_LONGEST = 20.0
"""Nor one that was silent for less than so many times the longest silence that was followed by work."""


class HangWatch:
    """Workers that have something to do and have shown no work for longer than what was seen so far explains.

    Parameters
    ----------
    first, least, times
        Seconds until a worker's first work; seconds that are always allowed; and how many times the longest silence.
    """

    def __init__(
        self, first: float = FIRST_SECONDS, least: float = LEAST_SECONDS, times: float = TIMES_THE_LONGEST
    ) -> None:
        self._first, self._least, self._times = first, least, times
        self._since: dict[Hashable, float] = {}
        """Workers that have something to do: when they began or last worked."""
        self._known: set[Hashable] = set()
        """Workers that have worked."""
        self._longest = 0.0

    def busy(self, worker: Hashable, now: float) -> None:
        """A worker has something to do."""
        self._since.setdefault(worker, now)

    def worked(self, worker: Hashable, now: float) -> None:
        """A worker has gone on with what it does."""
        if worker in self._since:
            if worker in self._known:
                self._longest = max(self._longest, now - self._since[worker])
            self._since[worker] = now
        self._known.add(worker)

    def idle(self, worker: Hashable) -> None:
        """A worker has nothing to do."""
        self._since.pop(worker, None)

    def forget(self, worker: Hashable) -> None:
        """A worker is gone."""
        self.idle(worker)
        self._known.discard(worker)

    def allowed(self, worker: Hashable) -> float:
        """Seconds for which a worker may show no work."""
        return max(self._least, self._times * self._longest) if worker in self._known else self._first

    def hung(self, now: float) -> list[Hashable]:
        """Workers that hang."""
        return [worker for worker, since in self._since.items() if now - since > self.allowed(worker)]
