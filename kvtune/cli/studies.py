"""``kvtune studies``: what is on disk; a study deleted, or under another name."""

import sys
from typing import Annotated

import typer

from kvtune.cli import completion
from kvtune.cli import options as opt
from kvtune.cli.commands import Command, group
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import flag
from kvtune.errors import RequestError

app = group(invoke_without_command=True)

Name = Annotated[
    str, typer.Argument(help="Name or folder of a study.", metavar="STUDY", autocompletion=completion.studies)
]


@app.callback()
def studies(context: typer.Context, studies_dir: opt.StudiesDir = opt.STUDIES, json: opt.Json = False) -> None:
    """List the studies there are and how far each is, the latest first.

    Example: kvtune studies --studies-dir studies
    """
    if context.invoked_subcommand is not None:
        return
    from kvtune.analysis.overview import overviews
    from kvtune.report.terminal.studies import overviews_view

    found = overviews(studies_dir)
    if json:
        print_json([overview.to_dict() for overview in found])
    elif not found:
        out().print_line(f"no studies in {studies_dir}; kvtune search makes one")
    else:
        out().print(overviews_view(found, out()))


@app.command(cls=Command)
def delete(
    study: Name,
    yes: Annotated[bool, flag("Delete without asking.", "--yes")] = False,
    studies_dir: opt.StudiesDir = opt.STUDIES,
) -> None:
    """Delete a study with all its captions, after a question.

    Example: kvtune studies delete demo-kvsmooth --yes
    """
    from kvtune.study.caption_log import count_captions
    from kvtune.study.manage import delete_study
    from kvtune.study.study_folder import find_study
    from kvtune.text import number_of

    folder = find_study(study, studies_dir)
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"nobody can be asked whether {folder.path} may go; give --yes to delete it")
        captions = sum(count_captions(path) for path in folder.captions.rglob("*.jsonl"))
        if not typer.confirm(f"Delete {folder.path} with its {number_of(captions, 'caption')}?", err=True):
            err().print("nothing was deleted")
            raise typer.Exit(1)
    delete_study(folder)
    err().print_line(f"deleted {folder.path}")


@app.command(cls=Command)
def rename(
    study: Name,
    name: Annotated[str, typer.Argument(help="The new name.", metavar="NAME")],
    studies_dir: opt.StudiesDir = opt.STUDIES,
) -> None:
    """Give a study another name; searches that go on with it then take --study NAME.

    Example: kvtune studies rename demo-kvsmooth first-try
    """
    from kvtune.study.manage import rename_study
    from kvtune.study.study_folder import find_study

    new = rename_study(find_study(study, studies_dir), name)
    out().print_line(f"{new.path}; go on with it by --study {new.name}")
