"""Trials as pandas data, for CSV, Parquet and notebooks."""

from typing import TYPE_CHECKING

from kvtune.search.summary import StudySummary

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("chair_s", "chair_i", "precision", "recall", "f1", "mean_words")


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
    images
        Tune images judged.
    """
    import pandas as pd

    everything = [*([summary.baseline] if summary.baseline else []), *summary.trials]
    parameters = list(dict.fromkeys(name for trial in summary.trials for name in trial.params))
    with_intervals = [name for name in SCORES if any(name in trial.intervals for trial in everything)]
    front = set(summary.front)
    rows = []
    for trial in everything:
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
        row |= {name: getattr(trial, name) for name in SCORES}
        for name in with_intervals:
            row[f"{name}_low"], row[f"{name}_high"] = trial.intervals.get(name, (None, None))
        rows.append(row | {"images": trial.images})
    columns = ["study", "kind", "number", "state", "published", "front", "chosen"]
    columns += [f"params_{name}" for name in parameters] + list(SCORES)
    columns += [f"{name}_{end}" for name in with_intervals for end in ("low", "high")] + ["images"]
    return pd.DataFrame(rows, columns=columns).astype({"number": "Int64", "images": "int64"})
