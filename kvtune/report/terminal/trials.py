"""The trials of a study as a table in the terminal that fits the width it is given."""

import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import OBJECTIVES
from kvtune.report.cells import LENGTH, RATES, heading, number, rate, with_interval
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.facts import STATE_WORDS, stand_ins
from kvtune.report.roles import LOOKS, OVERLAY_LOOK, roles
from kvtune.report.terminal.tables import add_numbers, fitting, plain_table, width_of
from kvtune.text import visible


def trials_table(
    summary: StudySummary,
    chosen: int | None,
    console: Console,
    overlays: Sequence[OverlayPoint] = (),
    *,
    rows: Sequence[TrialSummary] | None = None,
) -> RenderableType:
    """Return trials with their parameters and scores.

    On a console too narrow for one table the parameters move to a second one, or as many as they need; where that is
    still too wide, CHAIR_I, precision and recall are left out.

    Parameters
    ----------
    chosen
        Number of the trial that ``kvtune export`` would take, if any.
    overlays
        Results of other methods, shown last.
    rows
        What to show, :func:`front_rows` when left out.
    """
    names = summary.varying_parameters
    draw = _Tables(summary, chosen, console, front_rows(summary, chosen) if rows is None else rows, overlays)
    layouts: list[RenderableType] = [
        draw.table(RATES, names, intervals=RATES),
        draw.table(RATES, names, intervals=OBJECTIVES),
        *(
            Group(draw.table(rates, (), intervals=intervals), *draw.parameters(names))
            for rates, intervals in ((RATES, RATES), (RATES, OBJECTIVES), (OBJECTIVES, OBJECTIVES))
        ),
    ]
    return fitting(layouts, console)


class _Tables:
    """Tables of the same trials, with more or fewer columns."""

    def __init__(
        self,
        summary: StudySummary,
        chosen: int | None,
        console: Console,
        rows: Sequence[TrialSummary],
        overlays: Sequence[OverlayPoint],
    ) -> None:
        self.summary = summary
        self.chosen = chosen
        self.rows = rows
        self.overlays = overlays
        self.console = console
        self.ascii_only = console.options.ascii_only
        self.digits = max((len(str(trial.number)) for trial in rows if trial.number is not None), default=0)
        self.tied = () if chosen is None else summary.by_number[chosen].ties
        self.same_images = len({trial.images for trial in rows}) == 1

    def table(self, rates: Sequence[str], parameters: Sequence[str], intervals: Sequence[str] = ()) -> Table:
        table = plain_table()
        table.add_column("trial", no_wrap=True)
        add_numbers(table, (re.sub("[._]", "\n", name) for name in parameters))
        metrics = (*rates, *LENGTH) if rates else ()
        add_numbers(table, (heading(name, ascii_only=self.ascii_only) for name in metrics))
        add_numbers(table, ["images"] if rates and not self.same_images else [])
        for trial in self.rows:
            if not rates and not trial.params:
                continue
            cells = [number(trial.params[name]) if name in trial.params else "" for name in parameters]
            cells += [
                with_interval(trial.rate(name), trial.intervals.get(name) if name in intervals else None)
                for name in metrics
            ]
            if rates and not self.same_images:
                cells.append(str(trial.images))
            table.add_row(self._name(trial), *map(Text, cells))
        for point in self.overlays if rates else ():
            cells = [""] * len(parameters)
            cells += [rate(point.scores.get(name)) for name in metrics]
            table.add_row(self._overlay_name(point), *map(Text, cells))
        return table

    def parameters(self, names: Sequence[str]) -> list[RenderableType]:
        """The parameters alone, in as few tables as the console's width allows, each after an empty line."""
        tables: list[RenderableType] = []
        rest, room = list(names), self.console.width
        while rest:
            fits = (n for n in range(len(rest), 1, -1) if width_of(self.table((), rest[:n]), self.console) <= room)
            count = next(fits, 1)
            tables += ["", self.table((), rest[:count])]
            rest = rest[count:]
        return tables

    def _name(self, trial: TrialSummary) -> Text:
        found = roles(self.summary, trial, self.chosen)
        text = Text()
        if found:
            look = LOOKS[found[0]]
            text.append(look.sign(self.ascii_only), style=look.style)
        else:
            text.append(" ")
        named = [LOOKS[kind].label for kind in found if kind != "complete"]
        if trial.number in self.tied:
            named.append("tied")
        if trial.below_floor:
            named.append("below floor")
        if trial.state in ("running", "failed"):
            named.append(STATE_WORDS[trial.state])
        label = "" if trial.number is None else str(trial.number)
        return text.append(f" {label:>{self.digits}} " + ", ".join(named))

    def _overlay_name(self, point: OverlayPoint) -> Text:
        text = Text()
        text.append(OVERLAY_LOOK.sign(self.ascii_only), style=OVERLAY_LOOK.style)
        return text.append(f" {visible(point.label)}\n  ({point.kind})")


def front_rows(summary: StudySummary, chosen: int | None) -> list[TrialSummary]:
    """Return baseline, published preset, chosen trial and front by rising CHAIR_S, those of them that there are.

    Of trials of the front with the same scores there is one; :func:`kvtune.report.facts.same_rates` says so.
    """
    named = [
        each
        for each in summary.settings
        if (each.number is None or each.published or each.number == chosen) and each.number not in summary.front
    ]
    by_number = summary.by_number
    return [*named, *(by_number[number] for number in shown_front(summary, chosen))]


def shown_front(summary: StudySummary, chosen: int | None) -> list[int]:
    """Return the numbers of the front's trials that have a row."""
    hidden = {number for others in stand_ins(summary, chosen).values() for number in others}
    return [number for number in summary.front if number not in hidden]
