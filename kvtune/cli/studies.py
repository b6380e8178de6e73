"""``kvtune studies``: what is on disk."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, out, print_json


def studies(
    studies_dir: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("studies"), json: Json = False
) -> None:
    """List the studies there are and how far each is, the latest first."""
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
    for name in ("study", "model", "method", "images", "trials", "front", "hypervolume", "updated (UTC)"):
        table.add_column(name, justify="right" if name in ("images", "front", "hypervolume") else "left")
    for each in found:
        if each.problem is not None:
            table.add_row(each.study, f"[red]{' '.join(each.problem.split())}[/]", *[""] * 5, each.updated[:16])
            continue
        counts = ", ".join(f"{number} {state}" for state, number in (each.trials or {}).items()) or "none yet"
        volume = "" if each.hypervolume is None else f"{each.hypervolume:.1f}"
        texts = (each.study, each.model, each.method, str(each.images), counts, str(each.front), volume)
        table.add_row(*texts, each.updated[:16].replace("T", " "))
    out.print(table)
