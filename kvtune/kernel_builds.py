"""What Triton kernels need of a machine to be built, and why one could not be."""

from __future__ import annotations

import os
import shutil
import sysconfig
import textwrap
from importlib.util import find_spec
from pathlib import Path


def missing_for_builds() -> tuple[str, str] | None:
    """What Triton lacks on this machine, and how to get it; None if nothing.

    Triton brings the compiler of its kernels with it, but has what launches them built by the machine's C compiler
    (``triton.runtime.build``).
    """
    if find_spec("triton") is None:
        return "triton is not installed", "pip install triton"
    compiler = os.environ.get("CC")
    if compiler and not shutil.which(compiler.split()[0]):
        return f"there is no C compiler {compiler!r}, as CC says", "unset CC, or let it name one that is there"
    if not compiler and not (shutil.which("gcc") or shutil.which("clang")):
        return "there is no C compiler", "install gcc (apt install gcc; conda install gcc), or name one with CC"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        return f"Python's headers are missing ({header})", "install them (apt install python3-dev)"
    return None


def why_not_built(error: BaseException) -> str:
    """In a line, why a kernel could not be built, with the cure where the machine lacks something.

    Triton's own errors show the code first, and the fault below it.
    """
    while error.__cause__ is not None:  # a fault in a function that a kernel calls
        error = error.__cause__
    fault = getattr(error, "error_message", None)
    if not fault and (missing := missing_for_builds()):
        return "; ".join(missing)
    return textwrap.shorten(fault or str(error), 300) or type(error).__name__
