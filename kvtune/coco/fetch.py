"""HTTP downloads that survive drops, truncation and busy servers, and go on where they were stopped."""

import email.utils
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from kvtune import __version__
from kvtune.coco.http_opener import OPENER
from kvtune.errors import KvtuneError
from kvtune.files import cannot_write

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (done, total); total is 0 where it is not known."""

_BUSY = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 18
_NUMBER = re.compile(r"[0-9]{1,15}")
_LONGEST_REASON = 200
"""Characters of what a server says that a message repeats."""


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
    slowest
        Bytes a second, over as many seconds as ``timeout``, below which an attempt is one too.
    """

    attempts: int = 6
    delay: float = 0.5
    longest: float = 60.0
    timeout: float = 30.0
    slowest: float = 1000.0


USUAL = Patience()


class TooLargeError(FetchError):
    """A file is larger than it can be."""

    def __init__(self, url: str, limit: int) -> None:
        super().__init__(url, f"the server sends more than {limit / 2**20:.0f} MiB, which no such file has", final=True)


class _AttemptError(Exception):
    """One attempt failed; another may not. ``slow``: bytes that it brought are no reason for more patience."""

    def __init__(self, reason: str, retry_after: float | None = None, slow: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.slow = slow


def fetch_bytes(url: str, patience: Patience, check: Callable[[bytes], str | None], stop: Event, limit: int) -> bytes:
    """Download a small file into memory.

    Parameters
    ----------
    check
        Says what is wrong with the content, or None; wrong content is a failed attempt.
    stop
        Set it, from another thread, to end soon with a :class:`FetchError`.
    limit
        Bytes that it may have.

    Raises
    ------
    FetchError
        If it could not be had.
    """

    def attempt() -> bytes:
        data = bytearray()
        with _open(url, patience.timeout) as response:
            for chunk in _chunks(url, response, patience, limit):
                data += chunk
            _check_size(response, len(data))
        if problem := check(bytes(data)):
            raise _AttemptError(problem)
        return bytes(data)

    return _try_until(url, patience, attempt, lambda: 0, stop)


def fetch_file(
    url: str, path: Path, patience: Patience, limit: int, on_progress: Progress = lambda done, total: None
) -> None:
    """Download a large file to ``path``, going on with ``path.part`` if an earlier download left one.

    Parameters
    ----------
    path
        Where it appears, whole or not at all. Only one process may download to it at a time.
    limit
        Bytes that it may have.
    on_progress
        Called with (bytes here, bytes in all).

    Raises
    ------
    FetchError
        If it could not be had; what came stays in ``path.part``, unless the file is too large.
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
                length, done = _length(response), start
                for chunk in _chunks(url, response, patience, limit - start):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(done, start + length if length is not None else 0)
                _check_size(response, done - start)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_until(url, patience, attempt, lambda: part.stat().st_size if part.exists() else 0, Event())
        part.replace(path)
    except TooLargeError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise cannot_write(part, error) from error


def _chunks(url: str, response: Any, patience: Patience, limit: int) -> Iterator[bytes]:
    """What a response brings, as long as it is neither too much nor too slow."""
    if (_length(response) or 0) > limit:
        raise TooLargeError(url, limit)
    total = 0
    since, before = time.monotonic(), 0
    while chunk := _read(response):
        total += len(chunk)
        if total > limit:
            raise TooLargeError(url, limit)
        yield chunk
        now = time.monotonic()
        if now - since >= patience.timeout:
            if total - before < patience.slowest * (now - since):
                raise _AttemptError(f"too slow: {total - before} bytes in {now - since:.0f} s", slow=True)
            since, before = now, total


def _try_until(url: str, patience: Patience, attempt: Callable[[], T], gained: Callable[[], int], stop: Event) -> T:
    """Call ``attempt`` until it works; failures count anew whenever ``gained`` (bytes kept) reached a new high."""
    failures, most = 0, gained()
    while not stop.is_set():
        try:
            return attempt()
        except _AttemptError as failure:
            now = gained()
            failures = 0 if now > most and not failure.slow else failures + 1
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
        return OPENER.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return error  # a response too
        reason = f"{error.code} {error.reason}"[:_LONGEST_REASON]
        if error.code in _BUSY:
            raise _AttemptError(reason, _retry_after(error.headers.get("Retry-After"))) from error
        raise FetchError(url, reason, final=True) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a redirection to no address
        raise _AttemptError(_reason(error)) from error


def _read(response: Any) -> bytes:
    try:
        chunk: bytes = response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _AttemptError(_reason(error)) from error
    return chunk


def _length(response: Any) -> int | None:
    """What Content-Length says; None where it says nothing that can be a length."""
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if _NUMBER.fullmatch(length) else None


def _check_size(response: Any, size: int) -> None:
    length = _length(response)
    if length is not None and size != length:
        raise _AttemptError(f"truncated: {size} of {length} bytes came")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait: Retry-After is a number of them or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, OSError):
        error = error.reason
    return str(getattr(error, "strerror", None) or error)[:_LONGEST_REASON] or type(error).__name__
