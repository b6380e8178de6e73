"""``kvtune compare``: several studies side by side."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli import completion
from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import value
from kvtune.cli.side_files import write_beside


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(help="Names or folders of studies.", metavar="STUDY", autocompletion=completion.studies),
    ],
    select: Annotated[
        str,
        value(
            "RULE", "What marks the chosen points: keep-f1, knee, min-chair or max-f1.", complete=completion.selections
        ),
    ] = "keep-f1",
    out_dir: Annotated[
        Path | None,
        value("DIR", "Folder for the files; the first study's report folder when left out.", "--out"),
    ] = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Show several models or methods in one table and one picture (compare.png, .svg and .csv).

    With --json, no file is written. Without --out, files that cannot be written are a warning.

    Example: kvtune compare llava-1.5-kvsmooth minigpt4-kvsmooth
    """
    from kvtune.analysis.selection import choose
    from kvtune.analysis.summarize import summarize
    from kvtune.errors import RequestError
    from kvtune.files import check_writable
    from kvtune.report.data.compare import Compared, comparison_document, comparison_frame
    from kvtune.report.figures.compare import comparison_figure
    from kvtune.report.figures.drawing import save_pictures
    from kvtune.report.study_files import write_frame
    from kvtune.report.terminal.compare import comparison_table
    from kvtune.study.study_folder import find_study

    folders = [find_study(study, studies_dir) for study in studies]
    for index, folder in enumerate(folders):
        if any(os.path.samefile(folder.path, other.path) for other in folders[:index]):
            raise RequestError(f"study {folder.name} is named twice; name each once")
    stem = (out_dir or folders[0].report) / "compare"
    if out_dir is not None and not json:
        check_writable(stem.with_suffix(".csv"))
    summaries = [summarize(folder) for folder in folders]
    compared = [Compared(summary, choose(summary, select)) for summary in summaries]
    if json:
        print_json(comparison_document(compared))
        return
    out().print(comparison_table(compared, out()))

    def files() -> Iterator[Path]:
        yield from write_frame(stem, comparison_frame(compared))
        figure = comparison_figure([(each.summary, each.chosen) for each in compared])
        yield from save_pictures(figure, stem, "comparison of studies")

    write_beside(files(), out_dir is not None, "--out DIR")
