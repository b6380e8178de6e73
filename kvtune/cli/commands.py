"""Commands and groups of them: Typer's, with the options of the whole program on each, and help by subject."""

import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kvtune.errors import RequestError, check_count
from kvtune.files import check_path
from kvtune.text import quoted

EVERYWHERE = ("quiet", "verbose", "debug")
"""Options of the whole program that each of its commands takes after its own name too."""

_LONG_WORD = re.compile(r"\S{100,}")
_OPTIONS = "Options"
_WIDEST = 26
"""Columns for an option's name and value; a longer one has a line of its own."""


class Command(TyperCommand):
    """One command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See :meth:`click.Command.get_params`."""
        return [*super().get_params(ctx), *_everywhere(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """See :meth:`click.Command.invoke`."""
        _check_values(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See :meth:`click.Command.format_options`."""
        _write_options(self, ctx, formatter)


class Group(TyperGroup):
    """A group of commands; alone it prints its help, unless it is a command itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See :meth:`click.Command.get_params`."""
        return [*super().get_params(ctx), *_everywhere(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """See :meth:`click.Command.invoke`."""
        _check_values(ctx)
        return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See :meth:`click.Command.parse_args`."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit(RequestError.exit_code)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """See :meth:`click.Command.format_options`."""
        _write_options(self, ctx, formatter)
        with formatter.section(_heading("Commands")):
            formatter.write_dl([(name, _first_sentence(each.help)) for name, each in self.commands.items()])


def usage_message(error: Any) -> str:
    """What is wrong with a command line, in our words where Typer's are pydantic's."""
    from kvtune.schema import wanted

    found, parameter = getattr(error.__cause__, "errors", None), getattr(error, "param", None)
    if found is None or parameter is None:
        message = _LONG_WORD.sub(lambda word: f"{word[0][:60]}...{word[0][-20:]}", error.format_message())
    else:
        first = found()[0]
        option = parameter.param_type_name == "option"
        name = max(parameter.opts, key=len) if option else parameter.metavar or parameter.name.upper()
        if first["type"] == "value_error":  # one of several words
            message = f"{name} {quoted(first['input'])} is not {str(first['ctx']['error']).partition(' is not ')[2]}"
        else:
            message = f"{name} must be {wanted(first)}, not {quoted(first['input'])}"
    command = getattr(getattr(error, "ctx", None), "command_path", None) or "kvtune"
    return f"{message.removesuffix('.')} ({command} --help lists what there is)"


def group(**settings: Any) -> typer.Typer:
    """A group for Typer to fill."""
    return typer.Typer(cls=Group, rich_markup_mode=None, **settings)


def _everywhere(ctx: Any) -> list[Any]:
    root = ctx.find_root()
    return [] if ctx is root else [option for option in root.command.params if option.name in EVERYWHERE]


def _check_values(ctx: Any) -> None:
    """Refuse what no file can be called, text that is not UTF-8, and more of a thing than there can be, at once.

    The ``~`` of a path is expanded, which a shell leaves in ``--out=~/preset.json``.
    """
    for option, given in ctx.params.items():
        if isinstance(given, list | tuple):
            ctx.params[option] = [_checked(option, value) for value in given]
        else:
            ctx.params[option] = _checked(option, given)


def _checked(option: str, value: Any) -> Any:
    name = f"--{option.replace('_', '-')}"
    if isinstance(value, Path):
        return check_path(value)
    if isinstance(value, int) and option != "seed" and value > 1:
        check_count(name, value)
    elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(f"{name} {quoted(value)} is not UTF-8; write it in this encoding")
    return value


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Arguments and options under the headings that they were declared with."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if not parameter.hidden:
            argument = parameter.param_type_name == "argument"
            heading = parameter.rich_help_panel or ("Arguments" if argument else _OPTIONS)
            sections.setdefault(heading, []).append((_spelling(parameter), _explanation(parameter)))
    width = max(len(name) for rows in sections.values() for name, _ in rows if len(name) <= _WIDEST)
    for heading in sorted(sections, key=lambda heading: heading == _OPTIONS):
        with formatter.section(_heading(heading)):
            formatter.write_dl([(name.ljust(width), text) for name, text in sections[heading]], col_max=width)


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    short_first = sorted(parameter.opts, key=len)
    if parameter.is_flag:
        return ", ".join(short_first) + "".join(f" / {name}" for name in parameter.secondary_opts)
    return f"{', '.join(short_first)} {parameter.metavar}"


def _explanation(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return f"{parameter.help}  [required]"
    if default is None or default is False or parameter.show_default is False:
        return str(parameter.help)
    if default is True:
        default = parameter.opts[0].removeprefix("--")
    return f"{parameter.help}  [default: {default}]"


def _heading(text: str) -> str:
    return typer.style(text, bold=True)


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").partition("\n\n")[0].split())
    return paragraph.removesuffix(".")
