"""How far captioning is, and how long it will take: an estimate from tokens and prompts, not from finished captions.

Captions that are decoded side by side end at about the same time, so for long none is finished and then all are. What
passes evenly is tokens. What a token costs changes in the course of a run, and from one kind of run to another; the
engine's :class:`kvtune.captioning.cost_model.Course` says by how much, and what steps have taken says how long that is.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvtune.captioning.cost_model import Course
    from kvtune.captioning.request import Work

USUAL_TOKENS = 95.0
"""Tokens of a caption before one is known."""

_WEIGHT = 4
"""Captions that what was known before counts for beside those of this run, ..."""

_DOUBT = 0.02
"""... and this share of those in flight, whose lengths are less different from each other than chance would have."""

_SHAPE = 8.0
"""Of the Weibull distribution that lengths of captions are taken to have: they spread by some 15 % of their mean."""

_MEAN = math.gamma(1 + 1 / _SHAPE)
"""The mean of that distribution, as a share of its scale."""

_TURNS = 2
"""So many times as many captions as are in flight must have ended before those alone say how long captions are."""

_LEAST_REST = 0.12
"""Tokens that a caption in flight still gets at least, as a share of the usual number."""

_STRETCH = 20.0
"""Seconds whose work says how quick it goes at least, ..."""

_SHARE = 0.3
"""... and this share of the time so far."""


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
    tokens
        Tokens that this run has written.
    by
        Who writes, in lines of words, the first about all of them; empty where one device does.
    """

    def __init__(self, usual: float = USUAL_TOKENS, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usual, self._weight, self._rows = usual, float(_WEIGHT), 0
        self._ended_of_stage, self._tokens_of_stage, self._powers_of_stage = 0, 0, 0.0
        self.there, self.tokens = 0, 0
        self.by = ""
        self._later, self._later_each, self._later_images = 0.0, 1, 1
        self._stage, self._each, self._images = 0.0, 1, 1
        self._prompts_to_come = 0.0
        self._written = 0
        self._before: tuple[int, int, float] = (0, 0, 0.0)
        self._in_flight = 0
        self._first_prompts: float | None = None
        self._seconds_of_prompts, self._prompts, self._cost_of_prompts = 0.0, 0, 0.0
        self._steps = 0
        self._seconds, self._cost, self._recent_tokens = 0.0, 0.0, 0.0
        self._engine: tuple[int, bool] | None = None
        self._courses: dict[tuple[int, bool, int, int], Course] = {}
        self._begun = self._last = clock()

    @property
    def total(self) -> int:
        """Captions that will be there in the end."""
        return self.there + round(self._stage + self._later)

    def found(self, tokens: Sequence[int]) -> None:
        """Captions of so many tokens are there already, written by earlier runs."""
        self.there += len(tokens)
        self.expect(tokens)

    def expect(self, tokens: Sequence[int]) -> None:
        """Captions to come will be about as long as these."""
        if tokens:
            self._usual = sum(tokens) / len(tokens)

    def ahead(self, captions: float, each: int, images: int) -> None:
        """What comes after the stage that runs: captions, as far as is known; ``each`` of so many images at a time."""
        self._later, self._later_each, self._later_images = captions, max(1, each), max(1, images)

    @staticmethod
    def ahead_of_all(paces: "Iterable[Pace]") -> tuple[float, int, int]:
        """What comes after the stages of several works that run together; see :meth:`ahead`."""
        later = [(pace._later, pace._later_each, pace._later_images) for pace in paces]
        captions, each, images = zip(*later, strict=True)
        return sum(captions), sum(each), max(images)

    def begin(self, captions: int, each: int) -> None:
        """A stage begins: so many captions, ``each`` of an image together."""
        self._stage, self._each = float(captions), max(1, each)
        self._images = max(1, math.ceil(captions / self._each))
        self._prompts_to_come = self._images
        self._in_flight = self._rows = self._written = 0
        self._usual, self._weight = self.tokens_each, self._weight + self._ended_of_stage
        self._ended_of_stage, self._tokens_of_stage, self._powers_of_stage = 0, 0, 0.0
        self._before, self._last = (0, 0, 0.0), self._clock()

    def work(self, work: "Work") -> None:
        """The engine has gone on."""
        now = self._clock()
        seconds, self._last = now - self._last, now
        done = work.prompts, work.tokens, work.cost
        before = self._before if min(done[0] - self._before[0], done[1] - self._before[1]) >= 0 else (0, 0, 0.0)
        prompts, tokens, cost = done[0] - before[0], done[1] - before[1], done[2] - before[2]
        self._before, self._in_flight = done, work.in_flight
        self._engine = (work.room, work.by_image) if work.room else None
        self.tokens += tokens
        self.by = work.by
        self._written += tokens
        self._prompts_to_come = max(0.0, self._prompts_to_come - prompts)
        if prompts and work.rows is None:  # of many devices, prompts are part of what a token takes
            if self._first_prompts is None:  # of these and of the first step, a part is for what is done but once
                self._first_prompts = work.prompts_cost
            else:
                self._seconds_of_prompts += seconds
                self._prompts += prompts
                self._cost_of_prompts = work.prompts_cost - self._first_prompts
            return
        self._steps += 1
        if self._steps == 2:
            self._seconds = self._cost = self._recent_tokens = 0.0
        fade = math.exp(-seconds / max(_STRETCH, _SHARE * (now - self._begun)))
        self._rows = tokens if work.rows is None else work.rows
        if self._steps == 1 and self._cost_of_prompts:
            return
        self._seconds = fade * self._seconds + seconds
        self._recent_tokens = fade * self._recent_tokens + tokens
        self._cost = fade * self._cost + (cost if work.room else tokens)

    def caption(self, tokens: int) -> None:
        """A caption of so many tokens is there."""
        self.there += 1
        self._stage = max(0.0, self._stage - 1)
        self._ended_of_stage += 1
        self._tokens_of_stage += tokens
        self._powers_of_stage += float(tokens) ** _SHAPE

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
    def _likely(self) -> float:
        """Tokens of a caption, if nothing is known of those in flight but that they have got so far.

        The most likely mean of a Weibull distribution of a given shape, from captions that have ended and others that
        go on; what was known before counts as captions that have ended.
        """
        weight = self._weight + _DOUBT * self._rows
        powers = self._powers_of_stage + self._rows * self._age**_SHAPE + weight * (self._usual / _MEAN) ** _SHAPE
        return float(_MEAN * (powers / (self._ended_of_stage + weight)) ** (1 / _SHAPE))

    @property
    def _age(self) -> float:
        """Tokens of a caption in flight."""
        return self._in_flight / self._rows if self._rows else 0.0

    @property
    def _rest(self) -> float:
        """Tokens that it will still get; a caption that is longer than most is not at its end for that.

        That captions are longer than was known before is not believed of those that have not ended: they may all end
        at once.
        """
        usual = min(self._usual, self._likely)
        if self._ended_of_stage > _TURNS * self._rows:
            usual = self._tokens_of_stage / self._ended_of_stage
        return max(usual - self._age, _LEAST_REST * usual)

    @property
    def tokens_a_second(self) -> float:
        """Of late."""
        return self._recent_tokens / self._seconds if self._seconds else 0.0

    def seconds_left(self) -> float | None:
        """Seconds until all is done; None as long as nothing is known."""
        if not self._stage and not self._later:
            return 0.0 if self.there else None
        if self._cost:
            a_second = self._cost / self._seconds
        elif self._cost_of_prompts:  # before the first step
            a_second = self._cost_of_prompts / self._seconds_of_prompts
        else:
            return None
        each = self.tokens_each
        running = min(self._rows, self._stage)
        now, later = running * self._rest + (self._stage - running) * each, self._later * each
        cost = later * self._price(self._later_images, self._later_each, 0.0) if later else 0.0
        cost += now * self._price(self._images, self._each, self._written / max(1.0, self._written + now))
        prompts = min(self._prompts_to_come, self._stage) + self._later / self._later_each
        each_prompt = self._seconds_of_prompts / self._prompts if self._prompts else 0.0
        passed = self._clock() - self._last
        return max(0.0, cost / a_second + prompts * each_prompt - passed)

    def _price(self, images: int, each: int, share: float) -> float:
        """What a token of a stage costs on the grid that runs, once this share of them is written."""
        from kvtune.captioning.cost_model import Course

        if self._engine is None:  # who writes does not say how
            return 1.0
        key = (*self._engine, images, each)
        if key not in self._courses:
            self._courses[key] = Course(*key, self.tokens_each)
        return self._courses[key].rest(share)

    def words(self) -> str:
        """How quick it goes and how long it will take, as far as that is known."""
        known = []
        if self.tokens_a_second:
            known.append(f"{self.tokens_a_second:,.0f} tokens a second")
        if (left := self.seconds_left()) is not None and (left or self.tokens_a_second):
            known.append(f"{timedelta(seconds=round(left))} to go")
        known.append(self.by.partition("\n")[0])
        return ", ".join(filter(None, known))

    @property
    def share(self) -> float:
        """What part of the work of this run is done, by time: 0 to 1."""
        left = self.seconds_left()
        if left is None:
            return 0.0
        passed = self._clock() - self._begun
        return passed / max(1e-9, passed + left)
