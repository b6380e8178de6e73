"""A deadline, and how much work is begun before it: what cannot end in time is not begun."""

import contextlib
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

from kvtune.errors import RequestError
from kvtune.interrupts import instead_of_printing, kept_back_under
from kvtune.text import quoted

Item = TypeVar("Item")


_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"(?:({_NUMBER})h)?(?:({_NUMBER})m)?(?:({_NUMBER})s)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds of ``2h``, ``90m``, ``45s`` or ``1h30m``.

    Raises
    ------
    RequestError
        If it is none of these, or 0.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        raise RequestError(f"--timeout {text} has no unit; write {text}s, {text}m or {text}h")
    found = _DURATION.fullmatch(text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise RequestError(f"--timeout takes a time like 2h, 90m, 1h30m or 45s, not {quoted(text)}")
    return total


class TimeIsUp(BaseException):
    """The moment has come; no error, and nobody who catches errors is to catch it."""


class Deadline:
    """The moment at which a command has to end, if any.

    Parameters
    ----------
    seconds
        From now; None for never.
    clock
        Tells the time in seconds; by another than the machine's, nothing is interrupted amid its work.
    """

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._at = math.inf if seconds is None else clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, below 0 afterwards; infinite for never."""
        return self._at - self.clock()

    def is_over(self) -> bool:
        """Whether the moment has come."""
        return self.left <= 0

    def check(self) -> None:
        """Raise TimeIsUp if the moment has come."""
        if self.is_over():
            raise TimeIsUp

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Raise TimeIsUp when the moment comes, wherever the block is by then, but amid an import, as Ctrl-C would."""
        self.check()
        with self._alarm():
            yield
        self.check()

    def until(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items that come before the moment; it ends the work on the next one wherever that is by then.

        An iterator that is ended so may still give what it has, before it raises TimeIsUp again.
        """
        while True:
            try:
                with contextlib.nullcontext() if self.is_over() else self._alarm():
                    item = next(items)
            except StopIteration:
                return
            yield item

    @contextlib.contextmanager
    def _alarm(self) -> Iterator[None]:
        by_the_machine = self.clock is time.monotonic  # as an alarm goes
        if not by_the_machine or self._at == math.inf or threading.current_thread() is not threading.main_thread():
            yield
            return

        base = kept_back_under(sys._getframe())

        def end(number: int, frame: FrameType | None) -> None:
            if kept_back_under(frame) <= base:  # else the next alarm
                raise TimeIsUp

        def put_off() -> None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

        before = signal.signal(signal.SIGALRM, end)
        # Again and again: what is raised in a destructor or a callback is lost.
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, self.left), 1.0)
        try:
            with instead_of_printing(TimeIsUp, lambda: None):
                yield
        finally:
            # It may come while it is put off; left armed, it would come again in whatever runs then.
            try:
                put_off()
            finally:
                put_off()


_FIRST = 8
"""Captions that are written to see how long captions take."""

_SHARE = 0.5
"""Share of the time left that captions which are begun together may take by what is known: so they are whole in time
also if they take twice as long."""

_LAST_SHARE = 0.8
"""The same where fewer captions do not end earlier."""


class Waves:
    """How many captions are begun together so that they are whole before a deadline.

    Captions of one wave are decoded side by side and end at about the same time: more of them take longer, but a single
    one has to write its tokens one after the other too. So a wave's time is predicted on a line through the last wave
    and the smallest, and no wave is quicker than the smallest. More captions than ever before may not fit side by side;
    they take at most the time that they take in proportion, and are begun if that is left too. Without a deadline there
    is one wave without end.
    """

    def __init__(self, deadline: Deadline | None = None) -> None:
        self.deadline = deadline or Deadline()
        self._last: tuple[int, float] | None = None
        self._smallest: tuple[int, float] | None = None

    def size(self) -> int | None:
        """Captions to begin now; None for all there are, 0 if the time that is left is too short for any."""
        self._begun = self.deadline.clock()
        left = self.deadline.left
        if left == math.inf:
            return None
        if self._last is None or self._smallest is None:
            return _FIRST if left > 0 else 0
        size = self._fitting(_SHARE * left) or self._fitting(_LAST_SHARE * left)
        many, long = self._last
        return min(size, max(many, int(_LAST_SHARE * left * many / long)))

    def ended(self, captions: int) -> None:
        """So many captions were begun when :meth:`size` was asked last, and all of them have ended."""
        seconds = self.deadline.clock() - self._begun
        if captions:
            self._last = captions, seconds
            if self._smallest is None or captions <= self._smallest[0] or seconds < self._smallest[1]:
                self._smallest = captions, seconds

    def _fitting(self, seconds: float) -> int:
        """Captions that end within so many seconds, by what is known."""
        assert self._last is not None and self._smallest is not None
        (few, short), (many, long) = self._smallest, self._last
        if seconds < short:
            return 0
        if many <= few:
            return int(many * seconds / long)
        each = max(1e-9, (long - short) / (many - few))
        return few + int((seconds - short) / each)
