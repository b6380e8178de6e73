"""What ``kvtune export`` prints."""

from typing import Any

from kvtune.analysis.claims import claim
from kvtune.analysis.result import Difference
from kvtune.analysis.selection import Selection
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.presets import Preset
from kvtune.study.study_folder import StudyFolder


def export_lines(preset: Preset, selection: Selection, folder: StudyFolder) -> list[str]:
    """Return which trial of a study it is, what is known of it, and its parameters."""
    what = "a setting" if selection.trial.number is None else f"trial {selection.trial.number}"
    lines = [f"{what} of {folder.name}: {selection.rule} (on {selection.on} images)"]
    if preset.metrics is not None:
        lines += _of_images("tune", preset.metrics.tune, preset.metrics.baseline)
        if preset.metrics.holdout is not None:
            lines += _of_images("held-out", preset.metrics.holdout, preset.metrics.holdout["baseline"])
        elif selection.on == "tune":
            lines.append(f"chosen on these images, which flatter it: kvtune validate {folder.argument} asks others")
    return [*lines, " ".join(f"{name}={value}" for name, value in preset.parameters.items())]


def _of_images(images: str, metrics: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """What the preset's metrics on one subset say."""
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
