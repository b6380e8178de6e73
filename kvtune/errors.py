"""The ways in which kvtune says no; the command line prints each as one line."""

from collections.abc import Callable
from numbers import Integral
from pathlib import Path


class KvtuneError(Exception):
    """The work failed midway: one line that says what happened and what to do. Exit code 1."""

    exit_code = 1


class RequestError(KvtuneError):
    """The request is wrong: one line that says what is wrong and what to write instead. Exit code 2."""

    exit_code = 2


class LostDeviceError(KvtuneError):
    """A GPU does nothing more for this process, whatever is asked of it."""


MOST = 1_000_000
"""Of anything that is counted on a command line; nothing here has room for more."""


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a number of things that is none, too small, or larger than :data:`MOST`."""
    if not isinstance(value, Integral):
        raise RequestError(f"{name} must be a whole number, not {value!r:.60}")
    if value < least:
        raise RequestError(f"{name} must be at least {least}, not {value}")
    if value > MOST:
        raise RequestError(f"{name} must be at most {MOST:,}, not {str(value)[:20]}{'...' * (len(str(value)) > 20)}")


def cure_apart(error: KvtuneError, path: Path | None) -> tuple[str, str]:
    """What an error says of a path, and the cure after it; the path may hold what separates the two."""
    before, named, after = str(error).partition(str(path)) if path else ("", "", str(error))
    what, _, cure = after.partition("; ")
    return f"{before}{named}{what}", cure


def together(error: RequestError, *further: Callable[[], object]) -> RequestError:
    """One error that says what the first one says and what each further step refuses, so that all is mended at once."""
    said = [str(error)]
    for step in further:
        try:
            step()
        except RequestError as other:
            said.append(str(other))
    return RequestError("; and ".join(dict.fromkeys(said)))
