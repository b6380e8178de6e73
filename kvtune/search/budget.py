"""What a search will cost, and the time that it is given."""

import re
from datetime import timedelta

from kvtune.errors import RequestError
from kvtune.text import quoted

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


def cost(captions: int, tokens_each: float, seconds: float | None, raced: bool) -> str:
    """What so many captions cost, in words; an upper bound where trials are raced, because a race only spares."""
    text = f"{captions:,} captions, {_tokens(captions * tokens_each)}"
    if seconds is not None:
        text += f", {timedelta(seconds=round(seconds))}"
    return f"at most {text} to go; racing spares a part" if raced else f"{text} to go"


def _tokens(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.1f} million tokens"
    return f"{round(count, -2 if count >= 1e4 else 0):,.0f} tokens"
