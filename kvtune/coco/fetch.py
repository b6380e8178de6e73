"""HTTP downloads that survive drops, truncation and busy servers, and go on where they were stopped."""

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, TypeVar

from kvtune import __version__
from kvtune.errors import KvtuneError

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (done, total); total is 0 where it is not known."""

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 18


class FetchError(KvtuneError):
    """A URL could not be had. ``final``: the server said so, and trying again is of no use."""

    def __init__(self, url: str, reason: str, final: bool) -> None:
        super().__init__(f"{url}: {reason}")
        self.final = final


@dataclass(frozen=True)
class Patience:
    """When to try again, and when to stop.

    Attributes
    ----------
    attempts
        Failures in a row, without a byte gained, before giving up.
    delay, longest
        Seconds before the second attempt, doubled for each further one up to ``longest``; the server's Retry-After
        goes before, up to ``longest`` too.
    timeout
        Seconds without an answer or a byte that count as a failure.
    """

    attempts: int = 6
    delay: float = 0.5
    longest: float = 60.0
    timeout: float = 30.0


class _AttemptError(Exception):
    """One attempt failed; another may not."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def fetch_bytes(url: str, patience: Patience, check: Callable[[bytes], str | None], stop: Event) -> bytes:
    """Download a small file into memory.

    Parameters
    ----------
    url
        Its address.
    patience
        How often to try.
    check
        Says what is wrong with the content, or None; wrong content is a failed attempt.
    stop
        Set it, from another thread, to end soon with a :class:`FetchError`.

    Raises
    ------
    FetchError
        If it could not be had.
    """

    def attempt() -> bytes:
        with _open(url, patience.timeout) as response:
            data = b"".join(iter(lambda: _read(response), b""))
            _check_size(response, len(data))
        if problem := check(data):
            raise _AttemptError(problem)
        return data

    return _try_until(url, patience, attempt, lambda: 0, stop)


def fetch_file(url: str, path: Path, patience: Patience, on_progress: Progress | None = None) -> None:
    """Download a large file to ``path``, going on with ``path.part`` if an earlier download left one.

    Parameters
    ----------
    url
        Its address.
    path
        Where it appears, whole or not at all. Only one process may download to it at a time.
    patience
        How often to try.
    on_progress
        Called with (bytes here, bytes in all).

    Raises
    ------
    FetchError
        If it could not be had; what came stays in ``path.part``.
    KvtuneError
        If it cannot be written.
    """
    part = path.with_name(path.name + ".part")

    def attempt() -> None:
        with part.open("ab") as file:
            start = file.tell()
            with _open(url, patience.timeout, start) as response:
                if response.status == 416:  # nothing after what is here: it is whole, or not of this file
                    if response.headers.get("Content-Range") == f"bytes */{start}":
                        return
                    file.truncate(0)
                    raise _AttemptError("the part downloaded before does not belong to this file")
                if start and response.status == 200:  # a server that sends the whole file, whatever it is asked for
                    start = 0
                    file.truncate(0)
                elif start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                    raise _AttemptError("the server sent another part of the file than it was asked for")
                _append(response, file, start, on_progress)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_until(url, patience, attempt, lambda: part.stat().st_size if part.exists() else 0, Event())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise KvtuneError(f"cannot write {part}: {reason}; free some space or choose another folder") from error


def _append(response: Any, file: BinaryIO, start: int, on_progress: Progress | None) -> None:
    length = _length(response)
    done = start
    while chunk := _read(response):
        file.write(chunk)
        done += len(chunk)
        if on_progress:
            on_progress(done, start + length if length is not None else 0)
    _check_size(response, done - start)


def _try_until(url: str, patience: Patience, attempt: Callable[[], T], gained: Callable[[], int], stop: Event) -> T:
    """Call ``attempt`` until it works; failures count anew whenever ``gained`` (bytes kept) reached a new high."""
    failures, most = 0, gained()
    while not stop.is_set():
        try:
            return attempt()
        except _AttemptError as failure:
            now = gained()
            failures = 0 if now > most else failures + 1
            most = max(most, now)
            if failures >= patience.attempts:
                raise FetchError(url, f"{failure} ({failures} attempts)", final=False) from failure
            delay = patience.delay * 2 ** max(failures - 1, 0)
            stop.wait(min(delay if failure.retry_after is None else failure.retry_after, patience.longest))
    raise FetchError(url, "stopped", final=False)


def _open(url: str, timeout: float, start: int = 0) -> Any:
    """An open response, of a request for everything from byte ``start``; status 200, 206 or 416."""
    request = urllib.request.Request(url, headers={"User-Agent": f"kvtune/{__version__}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return error  # a response too
        reason = f"{error.code} {error.reason}"
        if error.code in _BUSY:
            raise _AttemptError(reason, _retry_after(error.headers.get("Retry-After"))) from error
        raise FetchError(url, reason, final=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(_reason(error)) from error


def _read(response: Any) -> bytes:
    try:
        chunk: bytes = response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(_reason(error)) from error
    return chunk


def _length(response: Any) -> int | None:
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _check_size(response: Any, size: int) -> None:
    length = _length(response)
    if length is not None and size != length:
        raise _AttemptError(f"truncated: {size} of {length} bytes came")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait: Retry-After is a number of them or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
