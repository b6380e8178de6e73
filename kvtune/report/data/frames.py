"""Trials, and settings of a sensitivity, as pandas data for CSV, Parquet and notebooks."""

from typing import TYPE_CHECKING

from kvtune.analysis.result import Validated
from kvtune.analysis.sensitivity import Sensitivity
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import METRICS, OBJECTIVES

if TYPE_CHECKING:
    import pandas as pd


def trials_frame(summary: StudySummary, chosen: int | None = None) -> "pd.DataFrame":
    """Return one row for the baseline and each trial.

    Columns
    -------
    study, kind
        ``kind`` is ``baseline`` or ``trial``.
    number
        Trial number, missing for the baseline.
    state
        ``complete``, ``raced``, ``failed`` or ``running``.
    published, front, chosen
        Whether it is the published preset, on the front, what ``kvtune export`` would take.
    params_NAME
        One column a parameter, named as Optuna's ``trials_dataframe`` names them.
    chair_s, chair_i, precision, recall, f1, mean_words
        Rates in percent and words a caption, missing where nothing was judged.
    chair_s_low, chair_s_high, ...
        95 % intervals, where any trial has them.
    chair_s_difference, chair_s_difference_low, chair_s_difference_high, chair_s_p, chair_s_p_adjusted, f1_...
        CHAIR_S and F1 against the baseline, paired, where any trial was compared.
    ties, at_limit, distinct_1, distinct_2, distinct_3, cut_chair_s, cut_f1, length_flag
        See :class:`kvtune.analysis.summary.TrialSummary` and :class:`kvtune.analysis.summary.Length`, where any has
        them.
    images
        Tune images judged.
    raced_out_by
        Number of the trial that dominates a raced one, where any was raced.
    below_floor
        Metrics below the study's floors, where there are floors.
    holdout_chair_s, holdout_chair_s_low, holdout_chair_s_high, holdout_chair_i, ...
        The rates on held-out images with 95 % intervals, where anything was validated.
    """
    import pandas as pd

    everything = summary.settings
    parameters = list(dict.fromkeys(name for trial in summary.trials for name in trial.params))
    with_intervals = [name for name in METRICS if any(name in trial.intervals for trial in everything)]
    with_statistics = any(trial.length is not None for trial in everything)
    raced = any(trial.state == "raced" for trial in everything)
    front = set(summary.front)

    def row_of(trial: TrialSummary) -> dict[str, object]:
        row: dict[str, object] = {
            "study": summary.study,
            "kind": "baseline" if trial.number is None else "trial",
            "number": trial.number,
            "state": trial.state,
            "published": trial.published,
            "front": trial.number in front,
            "chosen": trial.number is not None and trial.number == chosen,
        }
        row |= {f"params_{name}": trial.params.get(name) for name in parameters}
        row |= {name: trial.rate(name) for name in METRICS}
        for name in with_intervals:
            row[f"{name}_low"], row[f"{name}_high"] = trial.intervals.get(name, (None, None))
        if with_statistics:
            row |= _statistics(trial)
        row["images"] = trial.images
        if raced:
            row["raced_out_by"] = trial.raced_out_by
        if summary.floors:
            row["below_floor"] = " ".join(trial.below_floor)
        if summary.validation is not None:
            row |= _held_out(summary.validation.of(trial.number))
        return row

    whole = {"number": "Int64", "images": "int64"} | ({"raced_out_by": "Int64"} if raced else {})
    nothing = TrialSummary(None, {}, None, 0, "running")
    return pd.DataFrame([row_of(trial) for trial in everything], columns=list(row_of(nothing))).astype(whole)


def cut_baseline_frame(summary: StudySummary) -> "pd.DataFrame":
    """Return the baseline cut to 1, 2, 3, ... sentences: one row a cut, columns of
    :class:`kvtune.analysis.summary.CutBaseline`."""
    import pandas as pd

    columns = ["sentences", *sorted(METRICS, key=lambda name: METRICS[name].unit == "%")]
    return pd.DataFrame([cut.to_dict() for cut in summary.cut_baseline], columns=columns)


def sensitivity_frame(found: Sensitivity) -> "pd.DataFrame":
    """Return one row a value: ``parameter``, ``value``, ``trial``, scores, intervals as NAME_low and NAME_high."""
    import pandas as pd

    rows = []
    for sweep in found.sweeps:
        for point in sweep.points:
            row = {"parameter": sweep.parameter, "value": point.value, "trial": point.trial, **point.metrics.to_dict()}
            for name, (low, high) in point.intervals.items():
                row |= {f"{name}_low": low, f"{name}_high": high}
            rows.append(row | {"dominates": " ".join(map(str, point.dominates))})
    return pd.DataFrame(rows).astype({"trial": "Int64"})


_STATISTICS = [
    *(f"{name}_{part}" for name in OBJECTIVES for part in ("difference", "difference_low", "difference_high")),
    *(f"{name}_{part}" for name in OBJECTIVES for part in ("p", "p_adjusted")),
    "ties",
    "at_limit",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "cut_chair_s",
    "cut_f1",
    "length_flag",
]


def _statistics(trial: TrialSummary) -> dict[str, object]:
    """The columns of :data:`_STATISTICS`; missing where the trial was not looked at."""
    row: dict[str, object] = dict.fromkeys(_STATISTICS)
    for name in OBJECTIVES:
        if name in trial.differences:
            found = trial.differences[name]
            row |= {f"{name}_difference": found.value, f"{name}_p": found.p_value}
            row[f"{name}_p_adjusted"] = found.p_adjusted
            row[f"{name}_difference_low"], row[f"{name}_difference_high"] = found.interval
    row["ties"] = " ".join(map(str, trial.ties))
    if trial.length is not None:
        row |= {f"distinct_{n}": value for n, value in enumerate(trial.length.distinct, 1)}
        row |= {"at_limit": trial.length.at_limit, "length_flag": trial.length.flag}
        row |= {"cut_chair_s": trial.length.cut_chair_s, "cut_f1": trial.length.cut_f1}
    return row


def _held_out(found: Validated | None) -> dict[str, object]:
    """The columns of held-out rates; missing where the setting was not validated."""
    row: dict[str, object] = {}
    for name in METRICS:
        row[f"holdout_{name}"] = found.holdout.metrics[name] if found else None
        interval = found.holdout.intervals.get(name) if found else None
        row[f"holdout_{name}_low"], row[f"holdout_{name}_high"] = interval or (None, None)
    return row
