"""``kvtune`` in this process, where all that it takes is imported already."""

import contextlib
import io
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from kvtune.cli.main import main


def kvtune(*arguments: object, cwd: Path | None = None, **environment: str) -> CompletedProcess[str]:
    """Run a command; its exit code, and what it wrote where nobody looks on."""
    words, shown, said = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in environment.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
            main(words)
    return CompletedProcess(words, int(ended.value.code or 0), shown.getvalue(), said.getvalue())
