"""``kvtune export``: one point of the front as a preset."""

from pathlib import Path
from typing import Annotated, Literal

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import value
from kvtune.files import check_writable

On = Literal["tune", "holdout"]


def export(
    study: opt.Study = None,
    to: Annotated[
        Path | None,
        value("FILE", "Where the preset goes; the study's presets folder when left out.", "--out"),
    ] = None,
    select: opt.Select = "keep-f1",
    select_on: Annotated[
        On,
        value("tune|holdout", "Images that the rule looks at; after holdout, held-out scores are optimistic."),
    ] = "tune",
    studies_dir: opt.StudiesDir = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Choose one point of a study and write it as a preset.

    The default takes the lowest CHAIR_S whose F1 is at least the baseline's, on tune images. What is said of it against
    the baseline has 95 % intervals, and what may be chance is said to be so. --select sensitivity:NAME=VALUE takes a
    setting that kvtune sensitivity tried.

    Example: kvtune export demo-kvsmooth --out preset.json
    """
    from kvtune.analysis.export import export as build
    from kvtune.report.terminal.export import export_lines
    from kvtune.study.study_folder import find_study

    folder = find_study(study, studies_dir)
    preset, selection = build(folder, select, select_on)
    path = to or folder.presets / f"{preset.name}.json"
    check_writable(path)
    preset.save(path)
    for note in selection.trial.notes:
        if note.kind == "lost-captions":
            err().say(f"warning: {note.text}")
    if json:
        print_json(
            {"out": str(path), "rule": selection.rule, "on": selection.on, "trial": selection.trial.number}
            | {"preset": preset.model_dump(mode="json", by_alias=True)}
        )
        return
    out().say(*export_lines(preset, selection, folder))
    out().print_line(f"wrote {path}")
