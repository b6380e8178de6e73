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
from kvtune.report.terminal.tables import fitting, listed, plain_table


def comparison_table(studies: Sequence[Compared], console: Console) -> RenderableType:
    """Return baseline, published preset and chosen trial of each study, with 95 % intervals and the hypervolume.

    Held-out results stand beside those on tune images where any study was validated; on a console too narrow for that,
    in a table of their own.
    """
    draw = _Drawing(studies, console.options.ascii_only)
    held_out = OBJECTIVES if any(each.summary.validation for each in studies) else ()
    apart: list[RenderableType] = ["", draw.table((), held_out)] if held_out else []
    layouts: list[RenderableType] = [
        draw.table(RATES, held_out, intervals=RATES),
        draw.table(RATES, held_out, intervals=OBJECTIVES),
        draw.table(OBJECTIVES, held_out, intervals=OBJECTIVES),
        Group(draw.table(OBJECTIVES, (), intervals=OBJECTIVES), *apart),
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


class _Drawing:
    def __init__(self, studies: Sequence[Compared], ascii_only: bool) -> None:
        self.studies = studies
        self.ascii_only = ascii_only

    def table(self, rates: Sequence[str], held_out: Sequence[str], intervals: Sequence[str] = ()) -> Table:
        """The rates on tune images with those intervals, and the rates on held-out images, always with intervals."""
        table = plain_table()
        tune = (*rates, *LENGTH) if rates else ()
        table.add_column("study", overflow="fold", max_width=34)
        for names, above in ((tune, "tune\n" if held_out else ""), (held_out, "held-out\n")):
            for name in names:
                label = heading(name, ascii_only=self.ascii_only)
                table.add_column(above + label, justify="right", no_wrap=True)
        if rates:
            table.add_column("hyper-\nvolume", justify="right", no_wrap=True)
        for index, each in enumerate(self.studies):
            if index:
                table.add_row()
            blank = [""] * (len(tune) + len(held_out))
            volume = [*blank, rate(each.summary.hypervolume)] if rates else []
            table.add_row(Text(each.summary.study, style="bold"), *volume)
            for trial in each.rows:
                table.add_row(self._name(each, trial), *self._cells(each, trial, tune, held_out, intervals))
        return table

    def _name(self, each: Compared, trial: TrialSummary) -> Text:
        found = roles(each.summary, trial, each.chosen)
        look = LOOKS[found[0] if found else "complete"]
        words = [LOOKS[kind].label for kind in found if kind in ("chosen", "baseline", "published")]
        label = Text(" ").append(look.sign(self.ascii_only), style=look.style)
        return label.append(f" {'' if trial.number is None else f'{trial.number} '}{', '.join(words)}")

    def _cells(
        self,
        each: Compared,
        trial: TrialSummary,
        rates: Sequence[str],
        held_out: Sequence[str],
        intervals: Sequence[str],
    ) -> list[str]:
        cells = [
            with_interval(trial.rate(name), trial.intervals.get(name) if name in intervals else None) for name in rates
        ]
        found = each.held_out(trial.number)
        for name in held_out:
            cells.append(with_interval(found.metrics[name], found.intervals.get(name)) if found else rate(None))
        return [*cells, ""] if rates else cells
