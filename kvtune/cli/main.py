"""The command line: one file a command, gathered here."""

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import kvtune
from kvtune.cli import bench, data, models, studies
from kvtune.cli.caption import caption
from kvtune.cli.commands import Command, group, usage_message
from kvtune.cli.common import (
    be_quiet,
    print_error_line,
    report_error,
    say_more,
    set_up,
    show_tracebacks,
    terminable,
)
from kvtune.cli.compare import compare
from kvtune.cli.dashboard import dashboard
from kvtune.cli.doctor import doctor
from kvtune.cli.export import export
from kvtune.cli.methods import methods
from kvtune.cli.pareto import pareto
from kvtune.cli.reproduce import reproduce
from kvtune.cli.rescore import rescore
from kvtune.cli.score import score
from kvtune.cli.search import search
from kvtune.cli.sensitivity import sensitivity
from kvtune.cli.streams import guard_streams, output_error
from kvtune.cli.tournament import tournament
from kvtune.cli.validate import validate
from kvtune.errors import KvtuneError

app = group(
    help="Tune training-free cures for object hallucination, KVSmooth first, for your vision-language model.",
    name="kvtune",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(kvtune.__version__)
        raise typer.Exit


def _option(*names: str, help: str, callback: Callable[[bool], None]) -> Any:
    return typer.Option(*names, help=help, callback=callback, is_eager=True, expose_value=False)


@app.callback()
def _root(
    quiet: Annotated[bool, _option("--quiet", "-q", help="Only warnings and the result.", callback=be_quiet)] = False,
    verbose: Annotated[
        bool, _option("--verbose", "-v", help="Say more about what is done.", callback=say_more)
    ] = False,
    debug: Annotated[
        bool, _option("--debug", help="Show the traceback of an error.", callback=show_tracebacks)
    ] = False,
    version: Annotated[bool, _option("--version", help="Print the version.", callback=_print_version)] = False,
) -> None: ...


_COMMANDS: tuple[Callable[..., None], ...] = (
    search,
    pareto,
    export,
    validate,
    sensitivity,
    reproduce,
    rescore,
    methods,
    compare,
    tournament,
    caption,
    score,
    dashboard,
    doctor,
)
for _command in _COMMANDS:
    app.command(cls=Command)(_command)
for _name, _group in {"data": data.app, "models": models.app, "studies": studies.app, "bench": bench.app}.items():
    app.add_typer(_group, name=_name)


@functools.cache
def root() -> TyperGroup:
    """All commands, with what each takes, made once in a process."""
    made = typer.main.get_command(app)
    assert isinstance(made, TyperGroup)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``kvtune``; every expected failure becomes one line on stderr and an exit code of 1 or 2.

    Ctrl-C, SIGTERM and SIGHUP end it with 130. Output that cannot be written does not stop the work, but the exit code
    is then 1; a reader that has left (``kvtune pareto | head``) is not even spoken of.
    """
    guard_streams()
    set_up()
    code = _run(arguments)
    if (error := output_error()) is not None:
        if not isinstance(error, BrokenPipeError):
            print_error_line(f"the output could not be written to stdout: {error.strerror}")
        code = code or 1
    sys.exit(code)


def program() -> None:
    """Run ``kvtune`` as a process of its own, which ends at once.

    Taking apart what PyTorch and its like have built takes seconds of a processor, for a process that is over.
    """
    try:
        main()
    except SystemExit as ended:
        atexit._run_exitfuncs()  # temporary folders, pools of processes
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with terminable():
            words = list(arguments) if arguments is not None else None
            return root()(args=words, prog_name="kvtune", standalone_mode=False) or 0
    except KvtuneError as error:
        return report_error(error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Typer's own usage errors (unknown option, missing argument) share no public base class in every version.
        if hasattr(error, "format_message"):
            print_error_line(usage_message(error))
            return 2
        if (failure := _failure_of_machine(error)) is None:
            raise
        failure.__cause__ = error
        return report_error(failure)


def _failure_of_machine(error: Exception) -> KvtuneError | None:
    """What to say where memory or a GPU has failed, whatever was at work; None of any other error."""
    if isinstance(error, MemoryError):
        return KvtuneError("out of memory; close other programs, or ask for less at once")
    if "torch" not in sys.modules:
        return None
    from kvtune.device_errors import failure_anywhere

    return failure_anywhere(error)


if __name__ == "__main__":
    program()
