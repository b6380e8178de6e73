"""Who works, on what, how quick, and who was lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from kvtune.captioning.cluster.messages import Machine, Ready
from kvtune.captioning.request import Work

MOST_LINES = 8
"""Of machines and lost workers that are told of."""


@dataclass
class Entry:
    """One worker.

    Attributes
    ----------
    captions
        That it has written.
    seconds
        For which it had something to write.
    lost
        Why it is gone; None while it is there.
    """

    node: str
    device: str
    captions: int = 0
    seconds: float = 0.0
    lost: str | None = None

    @property
    def captions_a_second(self) -> float:
        return self.captions / self.seconds if self.seconds else 0.0


class Roster:
    """The workers that were ready, whether they still are or not; the caller has the clock."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._ready: dict[int, Ready] = {}
        self._since: dict[int, float] = {}
        self._work: dict[int, Work] = {}
        self.in_flight = 0
        """Tokens of captions that have not ended."""

    @property
    def ready(self) -> dict[int, Ready]:
        """Workers that can be sent requests."""
        return self._ready

    def join(self, worker: int, machine: Machine, ready: Ready) -> None:
        """A worker is ready."""
        self._entries[worker] = Entry(machine.node, machine.device)
        self._ready[worker] = ready

    def lose(self, worker: int, reason: str, now: float) -> None:
        """A worker is gone."""
        self.idle(worker, now)
        self.worked(worker, Work())
        del self._work[worker]
        if self._ready.pop(worker, None) is not None:
            self._entries[worker].lost = reason

    def worked(self, worker: int, work: Work) -> Work:
        """A worker has done so much since it is there; what it had done before."""
        last = self._work.get(worker, Work())
        self._work[worker] = work
        self.in_flight += work.in_flight - last.in_flight
        return last

    def busy(self, worker: int, now: float) -> None:
        """A worker has something to write."""
        self._since.setdefault(worker, now)

    def idle(self, worker: int, now: float) -> None:
        """A worker has nothing to write."""
        if worker in self._since:
            self._entries[worker].seconds += now - self._since.pop(worker)

    def wrote(self, worker: int, now: float, captions: int) -> None:
        """A worker has written so many captions more."""
        entry = self._entries[worker]
        entry.captions += captions
        if worker in self._since:
            entry.seconds += now - self._since[worker]
            self._since[worker] = now

    def speed(self, worker: int) -> float:
        """How quick a worker is, beside the others; 1 for one that is not known."""
        known = [entry.captions_a_second for each, entry in self._entries.items() if each in self._ready]
        known = [speed for speed in known if speed]
        own = self._entries[worker].captions_a_second
        return own * len(known) / sum(known) if own else 1.0

    @property
    def devices(self) -> str:
        """On what captions are written: ``8 x NVIDIA H100``."""
        counts = Counter(self._entries[worker].device for worker in self._ready)
        return ", ".join(f"{count} x {device}" for device, count in counts.most_common()) or "no worker"

    def __str__(self) -> str:
        """As in ``4 workers (4 x NVIDIA H100), 1 lost, 280 captions a second``."""
        count = len(self._ready)
        known = [f"{count} worker{'s' * (count != 1)}" + (f" ({self.devices})" if count else "")]
        lost = sum(entry.lost is not None for entry in self._entries.values())
        if lost:
            known.append(f"{lost} lost")
        speed = sum(self._entries[worker].captions_a_second for worker in self._ready)
        if speed:
            known.append(f"{_rate(speed)} captions a second")
        return ", ".join(known)

    def lines(self) -> list[str]:
        """All of them in a line, then each machine with its cards and their captions a second, then who was lost."""
        machines: dict[tuple[str, str], list[Entry]] = {}
        for worker in sorted(self._ready):
            entry = self._entries[worker]
            machines.setdefault((entry.node, entry.device), []).append(entry)
        found = [
            f"{node}: {len(entries)} x {device}, {' '.join(_rate(entry.captions_a_second) for entry in entries)} each"
            for (node, device), entries in sorted(machines.items())
        ]
        found += [f"{entry.node}: lost: {entry.lost}" for entry in self._entries.values() if entry.lost is not None]
        more = [f"and {len(found) - MOST_LINES} lines more"] if len(found) > MOST_LINES else []
        return [str(self), *found[:MOST_LINES], *more]

    def entries(self) -> list[dict[str, Any]]:
        """Every worker there was, for JSON."""
        return [
            asdict(entry) | {"seconds": round(entry.seconds, 1), "captions_a_second": round(entry.captions_a_second, 2)}
            for _, entry in sorted(self._entries.items())
        ]


def _rate(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
