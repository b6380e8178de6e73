"""What a search will cost, and when it has to end."""

import re
import time
from datetime import timedelta

from kvtune.errors import RequestError
from kvtune.text import quoted

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str) -> float:
    """Seconds of ``2h``, ``90m``, ``45s``, ``1h30m`` or a plain number of seconds.

    Raises
    ------
    RequestError
        If it is none of these, or 0.
    """
    found = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise RequestError(f"--timeout takes a time like 2h, 90m, 1h30m or 45s, not {quoted(text)}")
    return total


class Deadline:
    """The moment at which a search has to end, if any.

    Parameters
    ----------
    seconds
        From now; None for never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the moment has come."""
        return self._at is not None and time.monotonic() >= self._at


def cost(captions: int, tokens_each: float, captions_a_second: float, raced: bool) -> str:
    """What so many captions cost, in words; an upper bound where trials are raced, because a race only spares."""
    left = timedelta(seconds=round(captions / captions_a_second))
    text = f"{captions:,} captions, {_tokens(captions * tokens_each)}, {left}"
    return f"at most {text} to go; racing spares a part" if raced else f"{text} to go"


def _tokens(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.1f} million tokens"
    return f"{round(count, -2 if count >= 1e4 else 0):,.0f} tokens"
