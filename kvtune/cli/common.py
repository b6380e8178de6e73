"""What every command shares: -q, -v, --debug, one JSON document on stdout, one line for an error."""

import _thread
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from kvtune.errors import KvtuneError
from kvtune.interrupts import end_at_once, instead_of_printing, kept_back_under
from kvtune.text import command_line, json_text, one_line, visible, without_passwords

if TYPE_CHECKING:
    from kvtune.console import PlainConsole

_BETWEEN_TRIES = 0.05
"""Seconds until a signal that came amid an import is sent again."""

_debug = False


@functools.cache
def err() -> "PlainConsole":
    """Progress, tables meant for people while work goes on, warnings; never results of ``--json``."""
    from kvtune.console import PlainConsole

    return PlainConsole(stderr=True)


@functools.cache
def out() -> "PlainConsole":
    """Results."""
    from kvtune.console import PlainConsole

    return PlainConsole()


def set_up() -> None:
    """How much is said unless a command line says otherwise."""
    global _debug
    _debug = False
    err.cache_clear()
    out.cache_clear()
    # Pillow's, about images that it opens all the same; those too large for it are an error.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ToStderr()], force=True)
    logging.getLogger("kvtune").setLevel(logging.INFO)


def be_quiet(wanted: bool) -> None:
    """Say nothing but warnings and results."""
    if wanted:
        err().quiet = True
        logging.getLogger("kvtune").setLevel(logging.WARNING)


def say_more(wanted: bool) -> None:
    """Say more, unless quiet was asked for too."""
    if wanted and not err().quiet:
        logging.getLogger("kvtune").setLevel(logging.DEBUG)


def show_tracebacks(wanted: bool) -> None:
    """Show the traceback of an error."""
    global _debug
    _debug = _debug or wanted


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, unwrapped and uncoloured."""
    sys.stdout.write(json_text(document, indent=2) + "\n")


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Where Ctrl-C ends the block, end the command too, and say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        words = ["kvtune", *sys.argv[1:]]
        err().print_line(f"stopped; no caption is lost. Go on with: {command_line(words)}")
        raise typer.Exit(130) from None


def report_error(error: KvtuneError) -> int:
    """Print an error as one line on stderr (with ``--debug``, its traceback first) and return its exit code."""
    if _debug:
        lines = "".join(traceback.format_exception(error)).splitlines()
        sys.stderr.write("".join(visible(without_passwords(line)) + "\n" for line in lines))
    print_error_line(str(error))
    return error.exit_code


def print_error_line(message: str) -> None:
    """Print ``kvtune: message`` as one line on stderr, whatever line breaks the message had."""
    sys.stderr.write("kvtune: " + one_line(message) + "\n")


class _ToStderr(logging.Handler):
    """Writes sentences to a terminal, above a live display, and lines to whatever else ``sys.stderr`` is just then.

    What each of several cards or captioners says is said once, and again only after something else in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, str] = {}
        """The latest line of each message, by the message before numbers and names are put into it."""

    def emit(self, record: logging.LogRecord) -> None:
        line = visible(without_passwords(self.format(record)))
        if record.levelno in (logging.INFO, logging.WARNING):
            if self._said.get(str(record.msg)) == line:
                return
            self._said[str(record.msg)] = line
        if err().is_terminal and not err().quiet:
            err().say(line)
        else:
            sys.stderr.write(line + "\n")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, within the block; amid an import, a ``__del__``
    and wherever else it would be lost, after it.

    SIGTERM is a job scheduler's way to end a run, SIGHUP comes when a terminal or a connection closes. A signal that
    is ignored, as SIGHUP is under ``nohup``, stays so, and so does a handler of SIGINT that is not Python's or ours.
    """
    base, over = kept_back_under(sys._getframe()), threading.Event()

    latest = signal.SIGINT

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal latest
        latest = signal.Signals(number)
        if kept_back_under(frame) > base:
            later()
        else:
            raise KeyboardInterrupt

    def later() -> None:
        _thread.start_new_thread(again, ())  # threading's own locks may be held by what is interrupted

    def again() -> None:
        time.sleep(_BETWEEN_TRIES)
        if not over.is_set():
            os.kill(os.getpid(), latest)

    if threading.current_thread() is not threading.main_thread():  # others may set no handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    if (handler := signal.getsignal(signal.SIGINT)) in (signal.default_int_handler, end_at_once):
        heard[signal.SIGINT] = handler
    for number in heard:
        signal.signal(number, stop)
    try:
        with instead_of_printing(KeyboardInterrupt, later):
            yield
    finally:
        over.set()
        for number, handler in heard.items():
            signal.signal(number, handler)
