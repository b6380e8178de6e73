"""How far captioning is, and how long it will take: an estimate from tokens and prompts, not from finished captions.

Captions that are decoded side by side end at about the same time, so for long none is finished and then all are. What
passes evenly is tokens. What a token costs depends on how many captions share an image: reading its prompt costs a step
about as much as some captions do, whoever shares it.
"""

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

USUAL_TOKENS = 95.0
"""Tokens of a caption before one is known."""

_WEIGHT = 4
"""Captions that what was known before counts for beside those of this run."""

_PROMPT_IN_CAPTIONS = 3.0
"""Captions whose share of a step costs as much as reading one image's prompt does. From a model of 7B on a GPU and from
the demo on a CPU, where a token costs a third in rounds of eight of what it costs in the baseline."""

_LEAST_REST = 0.12
"""Tokens that a caption in flight still gets at least, as a share of the usual number."""

_TURNS = 2
"""So many times as many captions as are in flight must have ended before those say how long captions are."""

_LONGEST = 1.25
"""Tokens of the longest of some captions, as a share of their mean."""

_OWN_SHARE = 0.25
"""What part of a step's time it takes whatever its width, before steps of several widths were seen."""

_STRETCH = 20.0
"""Seconds whose work says how quick it goes at least, ..."""

_SHARE = 0.3
"""... and this share of the time so far."""


class Work(Protocol):
    """What a run of the engine has done so far; see :class:`kvtune.captioning.request.Work`."""

    prompts: int
    tokens: int
    in_flight: int
    rows: int | None
    by: str


class Pace:
    """What is done, what is to come, and how quick it goes.

    Parameters
    ----------
    usual
        Tokens that a caption is expected to have.
    clock
        Tells the time in seconds.

    Attributes
    ----------
    there
        Captions that are there, those of earlier runs included.
    later
        Captions to come after the stage that runs, as far as is known.
    later_lanes
        Captions of an image that will be written together then.
    tokens
        Tokens that this run has written.
    by
        Who writes, in words; empty where one device does.
    """

    def __init__(self, usual: float = USUAL_TOKENS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usual, self._weight, self._rows = usual, float(_WEIGHT), 0
        self._ended_of_stage, self._tokens_of_stage = 0, 0
        self.there, self.tokens = 0, 0
        self.by = ""
        self.later, self.later_lanes = 0.0, 1.0
        self._stage, self._lanes, self._prompts_to_come = 0.0, 1.0, 0.0
        self._before = (0, 0)
        self._in_flight = 0
        self._seconds_of_prompts, self._prompts = 0.0, 0
        self._seconds, self._cost, self._recent_tokens = 0.0, 0.0, 0.0
        self._steps = _StepTimes()
        self._longest = 0
        self._begun = self._last = clock()

    @property
    def total(self) -> int:
        """Captions that will be there in the end."""
        return self.there + round(self._stage + self.later)

    def found(self, tokens: Sequence[int]) -> None:
        """Captions of so many tokens are there already, written by earlier runs."""
        self.there += len(tokens)
        self.expect(tokens)

    def expect(self, tokens: Sequence[int]) -> None:
        """Captions to come will be about as long as these."""
        if tokens:
            self._usual = sum(tokens) / len(tokens)

    def begin(self, captions: int, lanes: float) -> None:
        """A stage begins: so many captions, ``lanes`` of each image together."""
        self._stage, self._lanes = float(captions), max(1.0, lanes)
        self._prompts_to_come = captions / self._lanes
        self._in_flight = self._rows = 0
        self._usual, self._weight = self.tokens_each, self._weight + self._ended_of_stage
        self._ended_of_stage = self._tokens_of_stage = 0
        self._before, self._last = (0, 0), self._clock()

    def work(self, work: Work) -> None:
        """The engine has gone on."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        prompts, tokens = work.prompts - self._before[0], work.tokens - self._before[1]
        if prompts < 0 or tokens < 0:  # another run
            prompts, tokens = work.prompts, work.tokens
        self._before, self._in_flight = (work.prompts, work.tokens), work.in_flight
        self.tokens += tokens
        self.by = work.by
        self._prompts += prompts
        self._prompts_to_come = max(0.0, self._prompts_to_come - prompts)
        if prompts and work.rows is None:
            self._seconds_of_prompts += seconds
            return
        fade = math.exp(-seconds / max(_STRETCH, _SHARE * (now - self._begun)))
        self._rows = tokens
        if work.rows is None:
            self._steps.add(tokens, seconds, fade)
        else:  # many devices tell of prompts and steps in one: tokens by the clock, and what prompts cost is in them
            self._rows = work.rows
        self._seconds = fade * self._seconds + seconds
        self._recent_tokens = fade * self._recent_tokens + tokens
        self._cost = fade * self._cost + tokens * _cost(self._lanes)

    def caption(self, tokens: int) -> None:
        """A caption of so many tokens is there."""
        self.there += 1
        self._stage = max(0.0, self._stage - 1)
        self._ended_of_stage += 1
        self._tokens_of_stage += tokens
        self._longest = max(self._longest, tokens)

    def join(self, captions: int) -> None:
        """So many captions more are to be written in the stage."""
        self._stage += captions

    def spare(self, captions: int) -> None:
        """So many captions of the stage will not be written."""
        self._stage = max(0.0, self._stage - captions)

    @property
    def tokens_each(self) -> float:
        """Tokens of a caption, as far as is known.

        Those that end first are short. So those in flight beside them count too, with what they will come to.
        """
        each = self._tokens_of_stage + self._weight * self._usual
        return (each + self._rows * (self._age + self._rest)) / (self._ended_of_stage + self._weight + self._rows)

    @property
    def _age(self) -> float:
        """Tokens of a caption in flight."""
        return self._in_flight / self._rows if self._rows else 0.0

    @property
    def _rest(self) -> float:
        """Tokens that it will still get; a caption that is longer than most is not at its end for that."""
        usual = self._usual
        if self._ended_of_stage > _TURNS * self._rows:
            usual = self._tokens_of_stage / self._ended_of_stage
        return max(usual - self._age, _LEAST_REST * usual)

    @property
    def tokens_a_second(self) -> float:
        """Of late."""
        return self._recent_tokens / self._seconds if self._seconds else 0.0

    def seconds_left(self) -> float | None:
        """Seconds until all is done; None as long as nothing is known."""
        if not self._stage and not self.later:
            return 0.0 if self.there else None
        if not self._cost:
            return None
        each = self.tokens_each
        running = min(self._rows, self._stage)
        now = running * self._rest + (self._stage - running) * each
        passed = self._clock() - self._last
        if not self.later and self._rows >= self._stage and self._steps.are_known:
            # All that is left is being decoded: as many steps more as the longest of them takes.
            steps = max(max(self._longest, _LONGEST * each) - self._age, 1.0)
            return max(0.0, self._steps.seconds(steps, now) - passed)
        cost = now * _cost(self._lanes) + self.later * each * _cost(self.later_lanes)
        prompts = min(self._prompts_to_come, self._stage) + self.later / self.later_lanes
        each_prompt = self._seconds_of_prompts / self._prompts if self._prompts else 0.0
        return max(0.0, cost * self._seconds / self._cost + prompts * each_prompt - passed)

    def words(self) -> str:
        """How quick it goes and how long it will take, as far as that is known."""
        known = []
        if self.tokens_a_second:
            known.append(f"{self.tokens_a_second:,.0f} tokens a second")
        if (left := self.seconds_left()) is not None and self.tokens_a_second:
            known.append(f"{timedelta(seconds=round(left))} to go")
        known.append(self.by)
        return ", ".join(filter(None, known))

    @property
    def share(self) -> float:
        """What part of the work of this run is done, by time: 0 to 1."""
        left = self.seconds_left()
        if left is None:
            return 0.0
        passed = self._clock() - self._begun
        return passed / max(1e-9, passed + left)


class _StepTimes:
    """What a step takes whatever its width, and what each caption adds: a line through the steps of late."""

    def __init__(self) -> None:
        self._count = self._rows = self._squares = self._seconds = self._products = 0.0

    @property
    def are_known(self) -> bool:
        """Whether there was a step."""
        return self._count > 0

    def add(self, rows: int, seconds: float, fade: float) -> None:
        """A step of so many captions; what was before counts for ``fade``."""
        values = (1.0, rows, rows * rows, seconds, rows * seconds)
        names = ("_count", "_rows", "_squares", "_seconds", "_products")
        for name, value in zip(names, values, strict=True):
            setattr(self, name, fade * getattr(self, name) + value)

    def seconds(self, steps: float, tokens: float) -> float:
        """Of so many steps that write so many tokens."""
        rows, seconds = self._rows / self._count, self._seconds / self._count
        own = _OWN_SHARE * seconds
        spread = self._squares / self._count - rows * rows
        if spread > (0.1 * rows) ** 2:
            slope = (self._products / self._count - rows * seconds) / spread
            own = min(max(0.0, seconds - slope * rows), seconds)
        return own * steps + (seconds - own) / rows * tokens


def _cost(lanes: float) -> float:
    """What a token costs where so many captions share an image, beside one of very many."""
    return 1 + _PROMPT_IN_CAPTIONS / lanes
