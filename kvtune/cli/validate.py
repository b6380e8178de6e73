"""``kvtune validate``: front, baseline, published preset on images never searched on."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, err, out, print_json, stopped
from kvtune.cli.progress import progress


def validate(
    study: Annotated[str | None, typer.Argument(help="Name or folder of a study; the latest when left out.")] = None,
    coco: Annotated[Path | None, typer.Option(help="COCO folder; the study's when left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    lanes: Annotated[str, typer.Option(help="Captions decoded at once: auto or a number.")] = "auto",
    studies_dir: Annotated[Path, typer.Option(help="Folder of studies.")] = Path("studies"),
    json: Json = False,
) -> None:
    """Caption the held-out images with the front, the baseline and the published preset, and compare.

    Differences to the baseline come with 95 % intervals and adjusted p-values. Results go to report/validation.json;
    presets that are exported later carry them. The same command again goes on where the last one stopped.

    Example: kvtune validate demo-kvsmooth
    """
    from kvtune.analysis.validate import validate as run
    from kvtune.report.terminal.held_out import validation_view
    from kvtune.study.captioning import Engine
    from kvtune.study.study_folder import find_study

    folder = find_study(study, studies_dir)
    try:
        with progress("held-out captions") as on_progress:
            found = run(folder, Engine(coco, device, lanes), on_progress)
    except KeyboardInterrupt:
        raise stopped() from None
    if json:
        print_json(found.model_dump(mode="json"))
        return
    out.print(validation_view(found, out))
    err.print(f"wrote {folder.validation}", soft_wrap=True)
