"""The command line: one file a command, gathered here."""

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import kvtune
from kvtune.cli import bench, data, models
from kvtune.cli.caption import caption
from kvtune.cli.common import command, print_error_line, report_error, terminable
from kvtune.cli.compare import compare
from kvtune.cli.dashboard import dashboard
from kvtune.cli.doctor import doctor
from kvtune.cli.export import export
from kvtune.cli.pareto import pareto
from kvtune.cli.reproduce import reproduce
from kvtune.cli.rescore import rescore
from kvtune.cli.score import score
from kvtune.cli.search import search
from kvtune.cli.sensitivity import sensitivity
from kvtune.cli.streams import guard_streams, output_error
from kvtune.cli.studies import studies
from kvtune.cli.validate import validate
from kvtune.errors import KvtuneError

_LONG_WORD = re.compile(r"\S{100,}")

app = typer.Typer(
    name="kvtune",
    help="Tune KVSmooth, a training-free cure for object hallucination, for your vision-language model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(kvtune.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


command(app)(search)
command(app)(pareto)
command(app)(export)
command(app)(validate)
command(app)(sensitivity)
command(app)(reproduce)
command(app)(rescore)
command(app)(studies)
command(app)(compare)
command(app)(caption)
command(app)(score)
command(app)(dashboard)
command(app)(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``kvtune``; every expected failure becomes one line on stderr and an exit code of 1 or 2.

    Ctrl-C, SIGTERM and SIGHUP end it with 130. Output that cannot be written does not stop the work, but the exit code
    is then 1; a reader that has left (``kvtune pareto | head``) is not even spoken of.
    """
    guard_streams()
    code = _run(arguments)
    if (error := output_error()) is not None:
        if not isinstance(error, BrokenPipeError):
            print_error_line(f"the output could not be written to stdout: {error.strerror}")
        code = code or 1
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        with terminable():
            return (
                app(args=list(arguments) if arguments is not None else None, prog_name="kvtune", standalone_mode=False)
                or 0
            )
    except KvtuneError as error:
        return report_error(error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Typer's own usage errors (unknown option, missing argument) share no public base class in every version.
        if not hasattr(error, "format_message"):
            raise
        message = _LONG_WORD.sub(lambda found: f"{found[0][:60]}...{found[0][-20:]}", error.format_message())
        command = getattr(getattr(error, "ctx", None), "command_path", None) or "kvtune"
        if message:  # a group without a command has shown its help, which says all
            print_error_line(f"{message} ({command} --help lists what there is)")
        return 2


if __name__ == "__main__":
    main()
