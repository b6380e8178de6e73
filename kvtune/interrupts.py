"""Signals that end the work: at once before it begins, and kept back where what is raised may be lost.

An import can lose it, or end the process with it: an extension module in C++ does not expect it. In ``__del__`` Python
prints it and goes on; and so it does where no name tells: in the callback of a weak reference, in a generator that is
thrown away, amid garbage collection, in the C of an extension.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_IMPORT = "<frozen importlib._bootstrap>"


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process as Ctrl-C does, without a word: a handler for the time before there is anything to lose."""
    os._exit(130)


def kept_back_under(frame: FrameType | None) -> int:
    """How deep in imports, and in ``__del__`` methods, a frame is; 0 for none.

    A handler compares the frame that it interrupts with the one that set it: the whole program may run in an import.
    """
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename == _IMPORT or frame.f_code.co_name == "__del__"
        frame = frame.f_back
    return depth


@contextmanager
def instead_of_printing(kind: type[BaseException], act: Callable[[], object]) -> Iterator[None]:
    """Within the block, call ``act`` where an exception of this kind would be printed and lost.

    Hooks that others set meanwhile stay after it, and may hand on to those that were there before.
    """
    before, is_over = (sys.unraisablehook, sys.excepthook), False

    def of_python(lost: Any) -> None:
        if not is_over and issubclass(lost.exc_type, kind):
            act()
        else:
            before[0](lost)

    def of_extensions(raised: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not is_over and issubclass(raised, kind):
            act()
        else:
            before[1](raised, error, trace)

    sys.unraisablehook, sys.excepthook = of_python, of_extensions
    try:
        yield
    finally:
        is_over = True
        if sys.unraisablehook is of_python:
            sys.unraisablehook = before[0]
        if sys.excepthook is of_extensions:
            sys.excepthook = before[1]
