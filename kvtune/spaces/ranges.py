"""The range over which one parameter is searched."""

from typing import Self

from pydantic import Field, model_validator

from kvtune.schema import Document


class Range(Document):
    """The range of one parameter, both ends included.

    ``step`` makes it discrete, ``log`` searches it on a logarithmic scale; a range has one or the other.
    """

    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("a range has step or log, not both")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low:g}")
        if self.step is not None and not is_whole((self.high - self.low) / self.step):
            raise ValueError(f"step {self.step:g} does not lead from {self.low:g} to {self.high:g}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers, once :meth:`SearchSpace.fitted` has set the types."""
        return isinstance(self.low, int)

    def contains(self, value: float) -> bool:
        """Whether ``value`` is in the range, and on one of its steps where it has them."""
        return self.low <= value <= self.high and (self.step is None or is_whole((value - self.low) / self.step))

    def grid(self) -> list[float] | None:
        """The values that the grid sampler tries; None for a continuous range without a step.

        Whole numbers need no step: they go one by one, and on a logarithmic scale they double (2, 4, 8, ...).
        """
        if self.log and self.whole:
            return [self.low * 2**power for power in range(64) if self.low * 2**power <= self.high]
        if self.step is None and not self.whole:
            return None
        step = self.step or 1
        return [self.snapped(self.low + index * step) for index in range(round((self.high - self.low) / step) + 1)]

    def snapped(self, value: float) -> float:
        """A value on one of the steps, exactly: adding steps up leaves 0.15000000000000002."""
        return value if self.step is None or self.whole else round(value, 10)

    def of_type(self, kind: type[int] | type[float]) -> "Range":
        """The same range with its numbers of one type."""
        step = None if self.step is None else kind(self.step)
        return Range(low=kind(self.low), high=kind(self.high), step=step, log=self.log)


def is_whole(value: float) -> bool:
    """Whether a number is whole but for rounding."""
    return abs(value - round(value)) < 1e-6
