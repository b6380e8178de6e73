"""Signals that end the work: at once before it begins, and kept back where what is raised may be lost.

An import can lose it, or end the process with it: an extension module in C++ does not expect it. In ``__del__`` Python
prints it and goes on.
"""

import os
from types import FrameType

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
