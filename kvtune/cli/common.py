"""What every command shares: -q, -v, --debug, one JSON document on stdout, one line for an error."""

import contextlib
import functools
import inspect
import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import check_path
from kvtune.terminal import PlainConsole
from kvtune.text import command_line, json_text, one_line, quoted, visible, without_passwords

err = PlainConsole(stderr=True)
"""Progress, tables meant for people while work goes on, warnings; never results of ``--json``."""

out = PlainConsole()
"""Results."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and the result.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is done.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_COMMON = {"quiet": Quiet, "verbose": Verbose, "debug": Debug}
_debug = False


def command(app: typer.Typer, name: str | None = None, **settings: Any) -> Callable[[Callable[..., None]], Any]:
    """Register a function as a command of ``app`` that also takes ``-q``, ``-v`` and ``--debug``."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name, **settings)(with_common_options(function))
        return function

    return register


def with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """The function with ``-q``, ``-v`` and ``--debug``, which are seen to before it runs."""

    @functools.wraps(function)
    def run(quiet: bool = False, verbose: bool = False, debug: bool = False, **arguments: Any) -> None:
        _configure(quiet, verbose, debug)
        for option, given in arguments.items():
            for value in given if isinstance(given, list | tuple) else [given]:
                _check_text(option, value)
        function(**arguments)

    signature = inspect.signature(function)
    common = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for key, annotation in _COMMON.items()
    ]
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *common])  # type: ignore[attr-defined]
    return run


def _check_text(option: str, value: Any) -> None:
    """Refuse what no file can be called, and text that is not UTF-8, before anything is done."""
    if isinstance(value, Path):
        check_path(value)
    elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(f"--{option.replace('_', '-')} {quoted(value)} is not UTF-8; write it in this encoding")


def print_json(document: Any) -> None:
    """Print one JSON document on stdout, unwrapped and uncoloured."""
    sys.stdout.write(json_text(document, indent=2) + "\n")


def stopped() -> typer.Exit:
    """Say how to go on after an interruption, and return what ends the command: ``raise stopped() from None``."""
    words = ["kvtune", *sys.argv[1:]]
    err.print(f"stopped; no caption is lost. Go on with: {command_line(words)}", soft_wrap=True)
    return typer.Exit(130)


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
    """Writes to whatever ``sys.stderr`` is at that moment: a live display puts itself there while it runs."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(visible(without_passwords(self.format(record))) + "\n")


def _configure(quiet: bool, verbose: bool, debug: bool) -> None:
    global _debug
    _debug = debug
    err.quiet = quiet
    # Pillow's, about images that it opens all the same; those too large for it are an error.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ToStderr()], force=True)
    logging.getLogger("kvtune").setLevel(level)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, within the block.

    SIGTERM is a job scheduler's way to end a run, SIGHUP comes when a terminal or a connection closes. A signal that
    is ignored, as SIGHUP is under ``nohup``, stays so.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # others may set no handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
