"""Held-out results as a table and in sentences."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.claims import claim
from kvtune.analysis.result import Validated, Validation
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.report.cells import LENGTH, interval, rate, with_interval
from kvtune.report.terminal.tables import add_numbers, fitting, listed, plain_table
from kvtune.text import visible


def validation_view(found: Validation, console: Console) -> RenderableType:
    """Return tune beside held-out results, differences to the baseline with intervals and p-values, and what they say.

    Where the console is too narrow for all of it in one row, scores and differences are tables of their own.
    """
    scores = _table(found, OBJECTIVES, scores=True, differences=False)
    apart = [_table(found, (metric,), scores=False, differences=True) for metric in OBJECTIVES]
    each = [_table(found, (metric,), scores=True, differences=False) for metric in OBJECTIVES]
    layouts: list[RenderableType] = [
        _table(found, OBJECTIVES, scores=True, differences=True),
        Group(scores, "", _table(found, OBJECTIVES, scores=False, differences=True)),
        Group(scores, "", apart[0], "", apart[1]),
        Group(each[0], "", each[1], "", apart[0], "", apart[1]),
    ]
    head = (
        f"{found.study}: {found.subset.images} held-out images ({found.subset.name}), "
        f"chosen on {found.tune_subset.images} tune images ({found.tune_subset.name})"
    )
    note = (
        "Under scores and differences: 95 % intervals, each for its setting alone. p: McNemar for CHAIR_S, paired "
        "randomisation for F1, Holm-adjusted over all settings. Shrinkage: difference on held-out minus difference on "
        "tune images."
    )
    notes = [note, *sentences(found), *_same_captions(found)]
    return Group(Text(visible(head), style="bold"), Text(), fitting(layouts, console), Text(), listed(notes))


def sentences(found: Validation) -> list[str]:
    """What each setting may claim against the baseline on the held-out images."""
    return [
        f"{label(each)} on held-out images: "
        + "; ".join(claim(metric, each.holdout.differences[metric]) for metric in OBJECTIVES)
        for each in found.settings
        if each.holdout.differences
    ]


def _same_captions(found: Validation) -> list[str]:
    """Which settings stand for others, too."""
    return [
        f"Trial {each.number} stands for {', '.join(map(str, each.same_captions))} too, which wrote the same captions "
        "on the tune images"
        for each in found.settings
        if each.same_captions
    ]


def label(setting: Validated) -> str:
    """A setting's name in tables: ``trial 7 (front)``."""
    if "baseline" in setting.roles:
        return "baseline"
    name = setting.name.replace("-", " ", 1) if setting.number is None else f"trial {setting.number}"
    roles = ", ".join(role for role in setting.roles if role != name)
    return name + (f" ({roles})" if roles else "")


def _table(found: Validation, metrics: Sequence[str], *, scores: bool, differences: bool) -> Table:
    table = plain_table()
    table.add_column("setting", no_wrap=True)
    for metric in metrics:
        columns = ["tune", "held-out"] if scores else []
        columns += ["difference", "p", "shrinkage"] if differences else []
        add_numbers(table, (f"{METRICS[metric].label}\n{column}" for column in columns))
    add_numbers(table, (f"{METRICS[metric].label}\nheld-out" for metric in LENGTH if scores))
    for setting in found.settings:
        if not scores and not setting.holdout.differences:
            continue
        cells: list[str] = []
        for metric in metrics:
            if scores:
                tune = None if setting.tune is None else setting.tune.metrics[metric]
                cells += [rate(tune), with_interval(setting.holdout.metrics[metric], setting.holdout.intervals[metric])]
            if differences:
                cells += _difference(setting, metric)
        if scores:
            cells += [rate(setting.holdout.metrics[metric]) for metric in LENGTH]
        table.add_row(Text(label(setting)), *map(Text, cells))
    return table


def _difference(setting: Validated, metric: str) -> list[str]:
    found = setting.holdout.differences.get(metric)
    if found is None:
        return ["", "", ""]
    shrinkage = f"{setting.shrinkage[metric]:+.1f}" if metric in setting.shrinkage else ""
    return [
        f"{found.value:+.1f}\n{interval(found.interval, signed=True)}",
        "<0.001" if found.p_adjusted < 0.001 else f"{found.p_adjusted:.3f}",
        shrinkage,
    ]
