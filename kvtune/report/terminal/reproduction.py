"""A reproduced table of the paper in the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.chair import METRICS, OBJECTIVES
from kvtune.report.cells import LENGTH, RATES, rate, with_interval
from kvtune.report.data.reproduction import difference_to_reported
from kvtune.report.reproduction_facts import images_of, label, reported_cell, sentences, title_of
from kvtune.report.terminal.tables import add_numbers, fitting, plain_table
from kvtune.reproduce import ModelResult, SettingResult
from kvtune.text import visible

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
    head = f"{title_of(found)} with {found.model} ({weights}): {images_of(found)}"
    parts: list[RenderableType] = [Text(visible(head), style="bold"), Text(), fitting(layouts, console), Text()]
    return Group(*parts, *(Text(visible(sentence)) for sentence in sentences(found)))


def _table(found: ModelResult, metrics: Sequence[str], others: Sequence[str] = (), *, intervals: bool = False) -> Table:
    table = plain_table()
    table.add_column("", no_wrap=True)
    for metric in metrics:
        add_numbers(table, (f"{METRICS[metric].label}\n{column}" for column in ("here", "reported", "difference")))
    add_numbers(table, (METRICS[metric].label for metric in (*others, *LENGTH)))
    for setting in found.settings:
        cells = [label(found, setting)]
        for metric in metrics:
            difference = difference_to_reported(found, setting, metric)
            cells += [_ours(setting, metric), reported_cell(found, setting, metric)]
            cells.append("" if difference is None else f"{difference:+.1f}")
        cells += [_ours(setting, metric) if intervals else rate(setting.result.metrics[metric]) for metric in others]
        cells += [rate(setting.result.metrics[metric]) for metric in LENGTH]
        table.add_row(*map(Text, cells))
    return table


def _ours(setting: SettingResult, metric: str) -> str:
    return with_interval(setting.result.metrics[metric], setting.result.intervals[metric])
