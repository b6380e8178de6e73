"""A reproduced table of the paper: in the terminal, as JSON, CSV and Markdown."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.claims import claim
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.files import write_text
from kvtune.json_files import write_json
from kvtune.methods import get_method
from kvtune.report.cells import LENGTH, RATES, interval, rate, with_interval
from kvtune.report.data.reported import Reported, reported
from kvtune.report.study_files import write_frame
from kvtune.report.terminal.tables import plain_table
from kvtune.report.terminal.trials import fitting
from kvtune.reproduce import ModelResult, SettingResult
from kvtune.reproduce.documents import FORMAT
from kvtune.reproduce.paper_settings import LAMBDAS, RIVALS, TABLES
from kvtune.text import visible

if TYPE_CHECKING:
    import pandas as pd

SECOND_HAND = "*"
"""Marks numbers that were read in a summary of the paper, or in a user's report."""

_RIVALS = {"pai": "PAI", "sparc": "SPARC", "middle_layers": "MiddleLayer"}

_OTHERS = tuple(name for name in RATES if name not in OBJECTIVES)


def reproduction_view(found: ModelResult, console: Console) -> RenderableType:
    """Return one model's table, our numbers beside the reported ones, and what follows from them in sentences."""
    layouts: list[RenderableType] = [
        _table(found, OBJECTIVES, _OTHERS, intervals=True),
        _table(found, OBJECTIVES, _OTHERS),
        _table(found, OBJECTIVES),
        Group(_table(found, OBJECTIVES[:1]), "", _table(found, OBJECTIVES[1:])),
    ]
    weights = ", ".join(filter(None, (found.id, found.revision and found.revision[:12], found.dtype)))
    head = f"{_title(found)} with {found.model} ({weights}): {_images(found)}"
    parts: list[RenderableType] = [Text(visible(head), style="bold"), Text(), fitting(layouts, console), Text()]
    return Group(*parts, *(Text(visible(sentence)) for sentence in sentences(found)))


def sentences(found: ModelResult) -> list[str]:
    """What the table says, where its numbers are from, and what they can not say."""
    return [
        "Under our numbers: 95 % intervals; difference: ours minus reported.",
        _constant(found),
        *(["Keys alone and attention output have KVSmooth's own parameters."] if found.setting("keys") else []),
        *_rivals(found),
        *_anchor(found),
        *(
            f"{_capital(label(found, setting))} against greedy decoding: "
            + "; ".join(claim(metric, setting.result.differences[metric]) for metric in OBJECTIVES)
            for setting in found.settings
            if setting.result.differences
        ),
        *_sources(found),
    ]


def label(found: ModelResult, setting: SettingResult) -> str:
    """A row's name in tables."""
    return {
        "opera": "OPERA's question",
        "baseline": "greedy",
        "constant": f"constant {found.constant.chosen}",
        "adaptive": "KVSmooth",
        "keys": "keys alone",
        "attention_output": "attention output",
        **_RIVALS,
    }[setting.name]


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
        theirs = _reported(found, setting)
        for name, (low, high) in setting.result.intervals.items():
            row |= {name: setting.result.metrics[name], f"{name}_low": low, f"{name}_high": high}
            row[f"{name}_reported"] = None if theirs is None else theirs.scores.get(name)
        rows.append(row | {"images": setting.result.metrics.images})
    return pd.DataFrame(rows)


def reproduction_markdown(found: ModelResult) -> str:
    """Return the table in Markdown, 95 % intervals in brackets, with its sentences below."""
    lines = [f"**{_title(found)} with {found.model}: {_images(found)}**", ""]
    columns = ["", *(f"{METRICS[name].label}{part}" for name in OBJECTIVES for part in ("", ", reported"))]
    columns += [METRICS[name].label for name in LENGTH]
    lines += ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for setting in found.settings:
        cells = [label(found, setting)]
        for metric in OBJECTIVES:
            cells.append(f"{rate(setting.result.metrics[metric])} ({interval(setting.result.intervals[metric])})")
            cells.append(_reported_cell(found, setting, metric).replace(SECOND_HAND, f"\\{SECOND_HAND}"))
        cells += [rate(setting.result.metrics[name]) for name in LENGTH]
        lines.append("| " + " | ".join(cells) + " |")
    listed = [sentence.replace(SECOND_HAND, f"\\{SECOND_HAND}") for sentence in sentences(found)]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in listed), ""])


def write_reproduction(folder: Path, found: ModelResult) -> list[Path]:
    """Write one model's table as TABLE.json, .csv and .md; return their paths.

    Raises
    ------
    KvtuneError
        If a file cannot be written.
    """
    stem = folder / found.table
    paths = [stem.with_suffix(".json"), *write_frame(stem, reproduction_frame(found)), stem.with_suffix(".md")]
    write_json(paths[0], reproduction_document([found]))
    write_text(paths[-1], reproduction_markdown(found))
    return paths


def _table(found: ModelResult, metrics: Sequence[str], others: Sequence[str] = (), *, intervals: bool = False) -> Table:
    table = plain_table()
    table.add_column("", no_wrap=True)
    for metric in metrics:
        for column in ("here", "reported", "difference"):
            table.add_column(f"{METRICS[metric].label}\n{column}", justify="right", no_wrap=True)
    for metric in (*others, *LENGTH):
        table.add_column(METRICS[metric].label, justify="right", no_wrap=True)
    for setting in found.settings:
        cells = [label(found, setting)]
        for metric in metrics:
            difference = _difference(found, setting, metric)
            cells += [_ours(setting, metric), _reported_cell(found, setting, metric)]
            cells.append("" if difference is None else f"{difference:+.1f}")
        cells += [_ours(setting, metric) if intervals else rate(setting.result.metrics[metric]) for metric in others]
        cells += [rate(setting.result.metrics[metric]) for metric in LENGTH]
        table.add_row(*map(Text, cells))
    return table


def _ours(setting: SettingResult, metric: str) -> str:
    return with_interval(setting.result.metrics[metric], setting.result.intervals[metric])


def _reported(found: ModelResult, setting: SettingResult) -> Reported | None:
    return reported(found.family, setting.name) if found.paper_model else None


def _reported_cell(found: ModelResult, setting: SettingResult, metric: str) -> str:
    theirs = _reported(found, setting)
    if theirs is None or metric not in theirs.scores:
        return ""
    return rate(theirs.scores[metric]) + ("" if theirs.first_hand else SECOND_HAND)


def _difference(found: ModelResult, setting: SettingResult, metric: str) -> float | None:
    theirs = _reported(found, setting)
    if theirs is None or metric not in theirs.scores:
        return None
    return float(setting.result.metrics[metric]) - theirs.scores[metric]


def _reported_document(found: ModelResult, setting: SettingResult) -> dict[str, Any] | None:
    theirs = _reported(found, setting)
    if theirs is None:
        return None
    return {
        "scores": dict(theirs.scores),
        "difference": {name: _difference(found, setting, name) for name in theirs.scores},
        "within_interval": {name: _within(setting, theirs, name) for name in theirs.scores},
        "source": theirs.source,
        "seen": theirs.seen,
        "first_hand": theirs.first_hand,
        "same_images": theirs.same_images,
    }


def _within(setting: SettingResult, theirs: Reported, metric: str) -> bool:
    low, high = setting.result.intervals[metric]
    return low <= theirs.scores[metric] <= high


def _title(found: ModelResult) -> str:
    return f"KVSmooth, {found.table[:5]} {found.table[5:]}"


def _images(found: ModelResult) -> str:
    count, name = found.subset.images, found.subset.name
    return f"{count} images ({name})" if found.whole else f"the first {count} images of {name}"


def _constant(found: ModelResult) -> str:
    sweep = found.constant
    tried = "; ".join(f"{point.factor}: {rate(point.metrics.f1)}" for point in sweep.points)
    return (
        f"Constant lambda: {sweep.chosen} has the highest F1 of {LAMBDAS[0]} to {LAMBDAS[-1]} on "
        f"{sweep.subset.images} other images ({sweep.subset.name}): {tried}."
    )


def _rivals(found: ModelResult) -> list[str]:
    """Where the settings of other methods are published, and for which methods none is known for this model."""
    told, unknown = [], []
    for name in (name for name in TABLES[found.table] if name in RIVALS):
        published = get_method(name).published_for(found.model, found.layers)
        setting = found.setting(name)
        if published is None or setting is None:
            unknown.append(_RIVALS[name])
        else:
            values = ", ".join(f"{key} {value}" for key, value in setting.params.items())
            told.append(f"{_RIVALS[name]}: {values} ({published.source}).")
    if unknown:
        told.append(f"{', '.join(unknown)}: no row, because no setting of theirs is known for {found.model}.")
    return told


def _anchor(found: ModelResult) -> list[str]:
    """Whether OPERA's published captions were hit."""
    setting = found.setting("opera")
    theirs = _reported(found, setting) if setting is not None else None
    if setting is None or theirs is None:
        return []
    missed = [METRICS[metric].label for metric in OBJECTIVES if not _within(setting, theirs, metric)]
    scores = " and ".join(f"{METRICS[metric].label} {rate(theirs.scores[metric])}" for metric in OBJECTIVES)
    text = f"Check: OPERA's own greedy captions of all of {found.subset.name} have {scores}; "
    if missed:
        return [
            f"{text}{' and '.join(missed)} outside our interval: look at weights, dtype and preprocessing before you "
            "trust the other rows."
        ]
    return [f"{text}both within our intervals."]


def _sources(found: ModelResult) -> list[str]:
    if not found.paper_model:
        adaptive = found.setting("adaptive")
        assert adaptive is not None
        layers = f"layers {adaptive.params['start_layer']} to {adaptive.params['end_layer'] - 1} of {found.layers}"
        return [
            f"Nothing is reported for this model. KVSmooth's parameters are those of its family's preset, {layers}."
        ]
    baseline = found.setting("baseline")
    assert baseline is not None
    chance = {}
    for metric in OBJECTIVES:
        low, high = baseline.result.intervals[metric]
        chance[METRICS[metric].label] = math.sqrt(2) * (high - low) / 2
    spread = " and ".join(f"{value:.1f} points of {name}" for name, value in chance.items())
    told = [
        "The paper's 500 images are others, and their ids are not published: two sets of as many images as here differ "
        f"by chance by up to {spread} (95 %)."
    ]
    rows = {setting.name: _reported(found, setting) for setting in found.settings}
    second_hand = {name: row for name, row in rows.items() if row is not None and not row.first_hand}
    of_rivals = {name: row for name, row in second_hand.items() if name in RIVALS}
    of_paper = [row for name, row in second_hand.items() if name not in RIVALS]
    told += [f"{SECOND_HAND} From {row.seen}." for row in of_paper[:1]]
    told += [f"{SECOND_HAND} {_RIVALS[name]}: {row.source}, from {row.seen}." for name, row in of_rivals.items()]
    if found.model != found.family:
        told.append(
            f"Reported numbers are those of {found.family}: they compare only if {found.model} has the same weights."
        )
    return told


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
