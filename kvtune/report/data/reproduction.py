"""A reproduced table of the paper beside the reported numbers, as JSON and as pandas data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvtune.report.data.reported import Reported, reported
from kvtune.reproduce import ModelResult, SettingResult
from kvtune.reproduce.documents import FORMAT

if TYPE_CHECKING:
    import pandas as pd


def reported_of(found: ModelResult, setting: SettingResult) -> Reported | None:
    """What the paper reports of a row; None where the model is not the paper's, or nothing is known."""
    return reported(found.family, setting.name) if found.paper_model else None


def difference_to_reported(found: ModelResult, setting: SettingResult, metric: str) -> float | None:
    """Ours minus the reported rate; None where nothing is reported."""
    theirs = reported_of(found, setting)
    if theirs is None or metric not in theirs.scores:
        return None
    return float(setting.result.metrics[metric]) - theirs.scores[metric]


def is_within(setting: SettingResult, theirs: Reported, metric: str) -> bool:
    """Whether a reported rate is in our 95 % interval."""
    low, high = setting.result.intervals[metric]
    return low <= theirs.scores[metric] <= high


def reproduction_document(results: Sequence[ModelResult]) -> dict[str, Any]:
    """Return what ``kvtune reproduce --json`` prints.

    Keys
    ----
    format, table
        ``kvtune-reproduction/1``; ``table1`` or ``table4``.
    models
        A list of :class:`kvtune.reproduce.ModelResult`, whose settings have one key more: ``reported`` is null,
        or has the reported ``scores`` (those that are known, by name), ours minus them as ``difference``, whether they
        lie ``within_interval``, the ``source``, where the numbers were ``seen``, ``first_hand`` (false for a summary)
        and ``same_images`` (true for OPERA's captions of the reporting set).
    """
    return {
        "format": FORMAT,
        "table": results[0].table,
        "models": [
            result.model_dump(mode="json", exclude={"table"})
            | {
                "settings": [
                    setting.model_dump(mode="json") | {"reported": _reported_document(result, setting)}
                    for setting in result.settings
                ]
            }
            for result in results
        ],
    }


def reproduction_frame(found: ModelResult) -> "pd.DataFrame":
    """Return one row a setting: scores, intervals as NAME_low and NAME_high, reported scores as NAME_reported."""
    import pandas as pd

    rows = []
    for setting in found.settings:
        row: dict[str, Any] = {"table": found.table, "model": found.model, "setting": setting.name}
        row |= {"prompt": setting.prompt, "lambda_ref": setting.params.get("lambda_ref")}
        theirs = reported_of(found, setting)
        for name, (low, high) in setting.result.intervals.items():
            row |= {name: setting.result.metrics[name], f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_reported"] = None if theirs is None else theirs.scores.get(name)
        rows.append(row | {"images": setting.result.metrics.images})
    return pd.DataFrame(rows)


def _reported_document(found: ModelResult, setting: SettingResult) -> dict[str, Any] | None:
    theirs = reported_of(found, setting)
    if theirs is None:
        return None
    return {
        "scores": dict(theirs.scores),
        "difference": {name: difference_to_reported(found, setting, name) for name in theirs.scores},
        "within_interval": {name: is_within(setting, theirs, name) for name in theirs.scores},
        "source": theirs.source,
        "seen": theirs.seen,
        "first_hand": theirs.first_hand,
        "same_images": theirs.same_images,
    }
