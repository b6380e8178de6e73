"""``kvtune pareto``: what a study found."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, err, out, print_json


def pareto(
    study: Annotated[str | None, typer.Argument(help="Name or folder of a study; the latest when left out.")] = None,
    every: Annotated[bool, typer.Option("--all", help="List all trials, not the front alone.")] = False,
    select: Annotated[
        str, typer.Option(help="Rule that marks the chosen point: keep-f1, knee, min-chair, max-f1 or trial:N.")
    ] = "keep-f1",
    parquet: Annotated[bool, typer.Option("--parquet", help="Write tables as Parquet too.")] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for the files; the study's report folder when left out.")
    ] = None,
    studies_dir: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("studies"),
    json: Json = False,
) -> None:
    """Show the front of a study: table and picture here, PNG, SVG and CSV as files.

    With --json, only files that another option asks for are written.

    Example: kvtune pareto demo-kvsmooth --all
    """
    from kvtune.report import facts, files
    from kvtune.report.document import study_document
    from kvtune.report.terminal import front_view
    from kvtune.search.layout import find_study
    from kvtune.search.summarize import summarize

    folder = find_study(study, studies_dir)
    summary = summarize(folder)
    chosen = facts.choice(summary, select)
    if parquet:
        files.check_parquet()
    if json:
        print_json(study_document(summary, chosen))
    else:
        out.print(front_view(summary, chosen, out, every=every))

    report = out_dir or folder.report
    written: list[Path] = []
    if not json or out_dir is not None:
        written += files.write_pictures(report, summary, chosen["trial"])
    if not json or out_dir is not None or parquet:
        written += files.write_trials(report, summary, chosen["trial"], parquet=parquet)
    for path in written:
        err.print(f"wrote {path}", soft_wrap=True, markup=False)
