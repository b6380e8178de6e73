"""``--from STUDY``: a search that begins with the front of another one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvtune.analysis.summarize import summarize
from kvtune.analysis.summary import StudySummary
from kvtune.errors import RequestError
from kvtune.methods import Alternatives, get_method
from kvtune.spaces import SearchSpace
from kvtune.study.manifest import Manifest, Start, TrialPoint, load_manifest
from kvtune.study.study_folder import find_study
from kvtune.text import number_of


def other_front(study: str, studies: Path, method: str) -> tuple[Manifest, StudySummary]:
    """The study that a search is to begin with.

    Raises
    ------
    RequestError
        If there is none of that name or path, it tuned other methods, or it has no front yet.
    """
    folder = find_study(study, studies)
    manifest, summary = load_manifest(folder), summarize(folder, statistics=False)
    if not set(manifest.fingerprint.space.alternatives.names) & set(Alternatives.of(method).names):
        raise RequestError(f"--from {study}: that study tuned {manifest.fingerprint.method}, not {method}")
    if not summary.front:
        raise RequestError(f"--from {study}: that study has no complete trial yet")
    return manifest, summary


def start_from(
    manifest: Manifest,
    summary: StudySummary,
    space: SearchSpace,
    layers: int,
    published: Sequence[Mapping[str, Any]],
) -> tuple[Start, list[str]]:
    """The front of another study as points of this one's space.

    Layers mean the same share of a model: in a model with another number of layers, first and last layer are scaled by
    the numbers of layers and rounded, inwards where rounding would leave their range. A value between two steps of
    a range goes to the nearest. A setting of a method that is not searched here, with a value outside its range, or
    another value of a parameter that is fixed here, is left out.

    Parameters
    ----------
    manifest, summary
        The other study.
    space, layers
        This one's.
    published
        Settings of the first trials, which are not repeated.

    Returns
    -------
    (Start, list of str)
        What to begin with, and what to tell about it.

    Raises
    ------
    RequestError
        If none of its settings is in the space.
    """
    name, by_number = summary.study, summary.by_number
    points: list[TrialPoint] = []
    left_out: list[str] = []
    for number in summary.front:
        found = as_point(by_number[number].params, manifest.fingerprint.space, space, layers / manifest.layers)
        if isinstance(found, str):
            left_out.append(f"trial {number} of {name} is left out: {found}")
        elif found not in [each.point for each in points] and space.full(found) not in published:
            points.append(TrialPoint(trial=number, point=found))
    if len(left_out) == len(summary.front):
        raise RequestError(f"--from {name}: no setting of its front is in the search space; {left_out[0]}")
    notes = [f"{len(points)} of {number_of(len(summary.front), 'setting')} on the front of {name} tried first"]
    if manifest.layers != layers:
        notes[0] += f", their layers scaled from {manifest.layers} to {layers}"
    return Start(study=name, study_id=manifest.id, points=points), notes + left_out


def as_point(
    setting: Mapping[str, Any], there: SearchSpace, space: SearchSpace, scale: float
) -> dict[str, int | float | str] | str:
    """A setting of another space as a point of this one; why it is none, else.

    Parameters
    ----------
    setting
        All parameters of the method.
    scale
        Layers here for each layer there.
    """
    method = there.alternatives.chosen(setting)
    if method not in space.parts:
        return f"its method is {method}"
    params, part = there.method_of(setting).parameters(), space.parts[method]
    point: dict[str, Any] = {}
    declared = get_method(method).declared()
    for name, searched in part.parameters.items():
        value = params[name] * scale if declared[name].is_layer else params[name]
        if searched.step is not None:
            value = searched.snapped(searched.low + round((value - searched.low) / searched.step) * searched.step)
        exact, value = value, round(value) if searched.whole else float(value)
        if declared[name].is_layer and scale != 1:
            # Half a layer may lie on the wrong side of the middle.
            nearest = min(max(value, searched.low), searched.high)
            value = nearest if abs(nearest - exact) < 1 else value
        if not searched.contains(value):
            return f"its {name} of {value:g} is not between {searched.low:g} and {searched.high:g}"
        point[name] = value
    for name, value in part.full(point).items():
        if name not in point and params.get(name) != value:
            return f"its {name} is {params.get(name)}, which is {value} here"
    return space.alternatives.here(method, point)
