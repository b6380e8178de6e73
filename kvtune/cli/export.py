"""``kvtune export``: one point of the front as a preset."""

from pathlib import Path
from typing import Annotated, Any, Literal

from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import STUDIES, Json, Select, StudiesDir, Study, value
from kvtune.files import check_writable

On = Literal["tune", "holdout"]


def export(
    study: Study = None,
    to: Annotated[
        Path | None,
        value("FILE", "Where the preset goes; the study's presets folder when left out.", "--out"),
    ] = None,
    select: Select = "keep-f1",
    select_on: Annotated[
        On,
        value("tune|holdout", "Images that the rule looks at; after holdout, held-out scores are optimistic."),
    ] = "tune",
    studies_dir: StudiesDir = STUDIES,
    json: Json = False,
) -> None:
    """Choose one point of a study and write it as a preset.

    The default takes the lowest CHAIR_S whose F1 is at least the baseline's, on tune images. What is said of it against
    the baseline has 95 % intervals, and what may be chance is said to be so. --select sensitivity:NAME=VALUE takes a
    setting that kvtune sensitivity tried.

    Example: kvtune export demo-kvsmooth --out preset.json
    """
    from kvtune.analysis.export import export as build
    from kvtune.study.study_folder import find_study

    if to is not None:
        check_writable(to)
    folder = find_study(study, studies_dir)
    preset, selection = build(folder, select, select_on)
    path = to or folder.presets / f"{preset.name}.json"
    preset.save(path)
    for note in selection.trial.notes:
        if note.kind == "lost-captions":
            err().print(f"warning: {note.text}", soft_wrap=True)
    if json:
        print_json(
            {"out": str(path), "rule": selection.rule, "on": selection.on, "trial": selection.trial.number}
            | {"preset": preset.model_dump(mode="json", by_alias=True)}
        )
        return
    lines = []
    if preset.metrics is not None:
        lines += _lines("tune", preset.metrics.tune, preset.metrics.baseline)
        if preset.metrics.holdout is not None:
            lines += _lines("held-out", preset.metrics.holdout, preset.metrics.holdout["baseline"])
        elif selection.on == "tune":
            lines.append(f"it was chosen on these images, which flatter it: kvtune validate {folder.name} asks others")
    parameters = " ".join(f"{name}={value}" for name, value in preset.parameters.items())
    what = "a setting" if selection.trial.number is None else f"trial {selection.trial.number}"
    out().print(f"{what} of {folder.name}: {selection.rule} (on {selection.on} images)", soft_wrap=True)
    out().print("\n".join([*lines, parameters, f"wrote {path}"]), soft_wrap=True)


def _lines(images: str, metrics: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """What the preset's metrics on one subset say."""
    from kvtune.analysis.claims import claim
    from kvtune.analysis.result import Difference
    from kvtune.chair import METRICS, OBJECTIVES

    scores = [
        f"{METRICS[name].label} {metrics[name]:.1f} (baseline {baseline[name]:.1f})"
        for name in OBJECTIVES
        if name in baseline
    ]
    lines = [f"{images} images: {', '.join(scores)}"]
    for name, found in metrics.get("differences", {}).items():
        if name in OBJECTIVES:
            lines.append(f"{images} images, against the baseline: {claim(name, Difference(**found))}")
    if metrics.get("length_flag"):
        lines.append(f"{images} images, length: {metrics['length_flag']}")
    return lines
