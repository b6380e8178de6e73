"""What is on disk, as a table in the terminal."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.overview import Overview
from kvtune.report.cells import rate
from kvtune.report.facts import STATE_WORDS
from kvtune.report.terminal.tables import add_numbers, fitting, plain_table
from kvtune.text import visible


def overviews_view(found: Sequence[Overview], console: Console) -> RenderableType:
    """Return a row a study with how far it is; model and date are left out where there is no room for them."""
    layouts = [_table(found, model, updated) for model, updated in ((True, True), (False, True), (False, False))]
    problems = [Text(visible(f"{each.study}: {each.problem}")) for each in found if each.problem is not None]
    return Group(fitting(layouts, console), *problems, *(line for each in found for line in _workers(each)))


def _workers(one: Overview) -> list[Text]:
    """Who writes a study's captions, or last did."""
    if one.workers_in_words is None:
        return []
    head = f"{one.study}, {'at work' if one.in_use else 'last written by'}:"
    return [Text(visible(line)) for line in (head, *(f"  {line}" for line in one.workers_in_words))]


def _table(found: Sequence[Overview], model: bool, updated: bool) -> Table:
    table = plain_table()
    table.add_column("study", overflow="fold", max_width=24)
    table.add_column("trials", no_wrap=True)
    add_numbers(table, ("images", "front", "hyper-\nvolume"))
    if model:
        table.add_column("model", overflow="fold")
    if updated:
        table.add_column("updated (UTC)", no_wrap=True)
    for each in found:
        counts = [f"{number} {STATE_WORDS[state]}" for state, number in (each.trials or {}).items()]
        if "running" in (each.trials or {}) and not each.in_use:
            counts.insert(0, "stopped,")
        cells = [each.study, "\n".join(counts) or "none yet", str(each.images), str(each.front)]
        cells.append("" if each.hypervolume is None else rate(each.hypervolume))
        if each.problem is not None:
            cells = [each.study, "unreadable", "", "", ""]
        if model:
            cells.append(each.model or "")
        if updated:
            cells.append(each.updated[:16].replace("T", " "))
        table.add_row(*map(Text, map(visible, cells)))
    return table
