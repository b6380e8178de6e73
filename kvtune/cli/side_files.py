"""Files that a command writes beside what it shows."""

from collections.abc import Iterable
from pathlib import Path

from kvtune.cli.common import err
from kvtune.errors import KvtuneError


def write_beside(paths: Iterable[Path], asked: bool = False, option: str = "") -> None:
    """Write files and say where they are.

    Parameters
    ----------
    paths
        Written as they are asked for.
    asked
        Whether the command line asks for them. Of what it does not ask for and cannot be written a line is said, and
        no more, for the command has shown what it was asked.
    option
        The option that names another folder.
    """
    try:
        for path in paths:
            err().print_line(f"wrote {path}")
    except KvtuneError as error:
        if asked:
            raise
        err().print_line(f"warning: not written: {error}" + (f" ({option})" if option else ""))
