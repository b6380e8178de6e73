"""Several studies side by side, like a paper's main table."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.summary import TrialSummary
from kvtune.chair import OBJECTIVES
from kvtune.report.cells import LENGTH, RATES, heading, rate, with_interval
from kvtune.report.data.compare import Compared, same_images
from kvtune.report.roles import LOOKS, roles
from kvtune.report.terminal.tables import add_numbers, fitting, listed, plain_table


def comparison_table(studies: Sequence[Compared], console: Console) -> RenderableType:
    """Return baseline, published preset and chosen trial of each study, with 95 % intervals and the hypervolume.

    Held-out results stand beside those on tune images where any study was validated; on a console too narrow for that,
    in a table of their own.
    """
    ascii_only = console.options.ascii_only
    held_out = OBJECTIVES if any(each.summary.validation for each in studies) else ()
    apart: list[RenderableType] = ["", _table(studies, ascii_only, (), held_out, ())] if held_out else []
    layouts: list[RenderableType] = [
        _table(studies, ascii_only, RATES, held_out, RATES),
        _table(studies, ascii_only, RATES, held_out, OBJECTIVES),
        _table(studies, ascii_only, OBJECTIVES, held_out, OBJECTIVES),
        Group(_table(studies, ascii_only, OBJECTIVES, (), OBJECTIVES), *apart),
    ]
    return Group(fitting(layouts, console), Text(), listed(_notes(studies)))


def _notes(studies: Sequence[Compared]) -> list[str]:
    notes = ["Under the rates: 95 % intervals."]
    if not same_images(studies):
        notes.append("Different tune images: rates of different studies do not compare.")
    notes += [f"{each.summary.study}: {each.choice.reason}." for each in studies if each.chosen is None]
    missing = [
        f"trial {each.chosen} of {each.summary.study}"
        for each in studies
        if each.chosen is not None and each.held_out(each.chosen) is None
    ]
    if missing:
        notes.append(f"Chosen on tune images, and not validated on others: {', '.join(missing)}.")
    return notes


def _table(
    studies: Sequence[Compared],
    ascii_only: bool,
    rates: Sequence[str],
    held_out: Sequence[str],
    intervals: Sequence[str],
) -> Table:
    """The rates on tune images with those intervals, and the rates on held-out images, always with intervals."""
    table = plain_table()
    tune = (*rates, *LENGTH) if rates else ()
    table.add_column("study", overflow="fold", max_width=34)
    for names, above in ((tune, "tune\n" if held_out else ""), (held_out, "held-out\n")):
        add_numbers(table, (above + heading(name, ascii_only=ascii_only) for name in names))
    add_numbers(table, ["hyper-\nvolume"] if rates else [])
    for index, each in enumerate(studies):
        if index:
            table.add_row()
        blank = [""] * (len(tune) + len(held_out))
        volume = [*blank, rate(each.summary.hypervolume)] if rates else []
        table.add_row(Text(each.summary.study, style="bold"), *volume)
        for trial in each.rows:
            cells = [
                with_interval(trial.rate(name), trial.intervals.get(name) if name in intervals else None)
                for name in tune
            ]
            found = each.held_out(trial.number)
            for name in held_out:
                cells.append(with_interval(found.metrics[name], found.intervals.get(name)) if found else rate(None))
            table.add_row(_name(each, trial, ascii_only), *cells, *([""] if rates else []))
    return table


def _name(each: Compared, trial: TrialSummary, ascii_only: bool) -> Text:
    found = roles(each.summary, trial, each.chosen)
    look = LOOKS[found[0] if found else "complete"]
    words = [LOOKS[kind].label for kind in found if kind in ("chosen", "baseline", "published")]
    label = Text(" ").append(look.sign(ascii_only), style=look.style)
    return label.append(f" {'' if trial.number is None else f'{trial.number} '}{', '.join(words)}")
