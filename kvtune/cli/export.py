"""``kvtune export``: one point of the front as a preset."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, out, print_json


def export(
    study: Annotated[str | None, typer.Argument(help="Name or folder of a study; the latest when left out.")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Where the preset goes; the study's presets folder when left out.")
    ] = None,
    select: Annotated[
        str, typer.Option(help="Rule that chooses: keep-f1, knee, min-chair, max-f1 or trial:N.")
    ] = "keep-f1",
    studies_dir: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("studies"),
    json: Json = False,
) -> None:
    """Choose one point of a study and write it as a preset.

    The default takes the lowest CHAIR_S whose F1 is at least the baseline's, on tune images. What is said of it against
    the baseline has 95 % intervals, and an improvement that is not sure is said to be none for sure.

    Example: kvtune export demo-kvsmooth --out preset.json
    """
    from kvtune.search.claims import claims
    from kvtune.search.export import export as build
    from kvtune.search.layout import find_study

    folder = find_study(study, studies_dir)
    preset, selection = build(folder, select)
    path = to or folder.presets / f"{preset.name}.json"
    preset.save(path)
    if json:
        print_json(
            {"out": str(path), "rule": selection.rule, "on": selection.on, "trial": selection.trial.number}
            | {"preset": preset.model_dump(mode="json", by_alias=True)}
        )
        return
    baseline = preset.metrics.baseline if preset.metrics else {}
    scores = ", ".join(
        f"{label} {getattr(selection.trial, name):.1f} (baseline {baseline[name]:.1f})"
        for label, name in (("CHAIR_S", "chair_s"), ("F1", "f1"))
        if name in baseline
    )
    notes = [f"against the baseline: {said}" for said in claims(selection.trial)]
    if selection.trial.length is not None and selection.trial.length.flag is not None:
        notes.append(f"length: {selection.trial.length.flag}")
    parameters = " ".join(f"{name}={value}" for name, value in preset.parameters.items())
    out.print(
        f"trial {selection.trial.number} of {folder.name}: {selection.rule} (on {selection.on} images)", soft_wrap=True
    )
    out.print("\n".join([scores, parameters, *notes, f"wrote {path}"]), soft_wrap=True, markup=False)
