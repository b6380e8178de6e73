"""Signals that end the work, kept back while a module is imported.

What is raised amid an import can be lost in it, or end the process: an extension module in C++ does not expect it.
"""

from types import FrameType

_IMPORT = "<frozen importlib._bootstrap>"


def imports_under(frame: FrameType | None) -> int:
    """How deep in imports a frame is; 0 for none.

    A handler compares the frame that it interrupts with the one that set it: the whole program may run in an import.
    """
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename == _IMPORT
        frame = frame.f_back
    return depth
