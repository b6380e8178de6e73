"""``kvtune studies``: what is on disk."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, out, print_json


def studies(
    studies_dir: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("studies"), json: Json = False
) -> None:
    """List the studies there are and how far each is, the latest first.

    Example: kvtune studies --studies-dir studies
    """
    from rich.table import Table

    from kvtune.search.overview import overviews

    found = overviews(studies_dir)
    if json:
        print_json([overview.to_dict() for overview in found])
        return
    if not found:
        out.print(f"no studies in {studies_dir}; kvtune search makes one", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("study", no_wrap=True)
    table.add_column("trials", no_wrap=True)
    for name in ("images", "front", "hypervolume"):
        table.add_column(name, justify="right")
    table.add_column("model")
    table.add_column("updated (UTC)")
    for each in found:
        updated = each.updated[:16].replace("T", " ")
        if each.problem is not None:
            table.add_row(each.study, "unreadable", "", "", "", "", updated)
            continue
        counts = ", ".join(f"{number} {state}" for state, number in (each.trials or {}).items()) or "none yet"
        volume = "" if each.hypervolume is None else f"{each.hypervolume:.1f}"
        table.add_row(each.study, counts, str(each.images), str(each.front), volume, each.model, updated)
    out.print(table)
    for each in found:
        if each.problem is not None:
            out.print(f"{each.study}: {each.problem}", soft_wrap=True, markup=False)
