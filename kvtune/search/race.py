"""A round's trials while they race: who is stopped, after how many images, because of whom.

What comes of a race depends on captions alone, never on when they finish: a look at a trial happens once all of its
first n images are captioned, and sees these only, whatever else was captioned by then; the members it is compared with
were complete before the round began. So it is the same on any machine, for any number of lanes, and after an
interruption, when the captions on disk are looked at again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.statistics.racing import Race
from kvtune.study.caption_log import CaptionLog

CountsOf = Callable[[Sequence[Mapping[str, Any]]], NDArray[np.int64]]
"""Captions to their counts for a race, ``[captions, len(RACE_COLUMNS)]``."""


@dataclass(frozen=True)
class RacedOut:
    """A trial that was stopped: after how many images, and which trial dominates it."""

    images: int
    by: int


@dataclass
class FirstImages:
    """How many of a trial's first images are captioned without a gap."""

    order: Sequence[int]
    log: CaptionLog
    count: int = 0

    def advance(self) -> int:
        """Look at the log again."""
        while self.count < len(self.order) and self.order[self.count] in self.log:
            self.count += 1
        return self.count


@dataclass
class _Runner:
    first: FirstImages
    looks: list[int]
    counts: list[NDArray[np.int64]] = field(default_factory=list)


class Heat:
    """The races of trials that are captioned together.

    Parameters
    ----------
    race
        When to look and what it takes; None for no race.
    order
        The tune images in the order of the race.
    members
        Trials that these are compared with: number to counts of all images in that order.
    logs
        The captions of each trial that runs, by number.

    Attributes
    ----------
    out
        What was decided so far, by number.
    """

    def __init__(
        self,
        race: Race | None,
        order: Sequence[int],
        members: Mapping[int, NDArray[np.int64]],
        logs: Mapping[int, CaptionLog],
        counts_of: CountsOf,
    ) -> None:
        self.out: dict[int, RacedOut] = {}
        self._race, self._counts_of = race, counts_of
        self._numbers = sorted(members)
        self._members = np.stack([members[number] for number in self._numbers]) if members else None
        self._runners: dict[int, _Runner] = {}
        if race is not None and members:
            self._runners = {number: _Runner(FirstImages(order, log), list(race.looks)) for number, log in logs.items()}
        for number in self._runners:
            self.look(number)

    def look(self, number: int) -> RacedOut | None:
        """Look at a trial if the images for it are there; call it after each of its captions.

        Returns
        -------
        RacedOut or None
            If the trial is stopped now, or was before.
        """
        runner = self._runners.get(number)
        if runner is None or number in self.out or self._race is None or self._members is None:
            return self.out.get(number)
        there = runner.first.advance()
        while runner.looks and runner.looks[0] <= there and number not in self.out:
            n = runner.looks.pop(0)
            begun = sum(map(len, runner.counts))
            order, log = runner.first.order, runner.first.log
            runner.counts.append(self._counts_of([log[image_id] for image_id in order[begun:n]]))
            best = self._race.dominator(np.concatenate(runner.counts), self._members, n)
            if best is not None:
                self.out[number] = RacedOut(n, self._numbers[best])
        return self.out.get(number)
