"""Methods against each other on held-out images: a table, and who is better than whom beyond doubt."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.claims import claim, verdict
from kvtune.analysis.contest import BASELINE, Contest, Pair
from kvtune.chair import METRICS, OBJECTIVES, Scores
from kvtune.report.cells import heading, rate, with_interval
from kvtune.report.terminal.tables import add_numbers, fitting, listed, plain_table
from kvtune.search.tournament import Tournament
from kvtune.statistics.confidence import Interval
from kvtune.text import number_of


def tournament_view(tournament: Tournament, console: Console) -> RenderableType:
    """Return the chosen point of each method, by rising CHAIR_S, under the baseline; then what is beyond doubt."""
    found = tournament.found
    layouts = [_table(tournament, console, cost) for cost in (True, False)]
    return Group(fitting(layouts, console), Text(), listed(_notes(tournament, found)))


def _table(tournament: Tournament, console: Console, cost: bool) -> Table:
    found = tournament.found
    table = plain_table(gap=2)
    table.add_column("method", overflow="fold")
    table.add_column("trial", justify="right")
    add_numbers(table, (heading(name, ascii_only=console.options.ascii_only) for name in OBJECTIVES))
    add_numbers(table, ("captions", "tokens", "seconds") if cost else ())
    table.add_row(BASELINE, "", *_rates(found.baseline, found.intervals), *[""] * 3 * cost)
    for entry in sorted(found.entries, key=lambda each: each.metrics.chair_s if each.metrics else float("inf")):
        chosen = "none" if entry.chosen is None else str(entry.chosen)
        costs = [str(entry.captions), str(entry.tokens), f"{tournament.seconds[entry.method]:.0f}"] if cost else []
        table.add_row(entry.method, chosen, *_rates(entry.metrics, entry.intervals), *costs)
    return table


def _rates(metrics: Scores | None, intervals: dict[str, Interval]) -> list[str]:
    if metrics is None:
        return [rate(None) for _ in OBJECTIVES]
    return [with_interval(metrics[name], intervals.get(name)) for name in OBJECTIVES]


def _notes(tournament: Tournament, found: Contest) -> list[str]:
    images = found.baseline.images
    notes = [
        f"Each method's point was chosen on tune images, as kvtune export does; its rates are over {images} held-out "
        "images, with 95 % intervals below them.",
        "Captions and tokens are what the trials of each study took, seconds this command's time, by tokens.",
    ]
    budgets = {entry.method: entry.summary.finished for entry in found.entries}
    if len(set(budgets.values())) > 1:
        counts = ", ".join(f"{method} {trials}" for method, trials in budgets.items())
        notes.append(
            f"Not the same budget: {counts} finished trials. More trials find better points, by luck too; the same "
            f"command with --trials {max(budgets.values())} makes it even."
        )
    clear = [_sentence(pair, metric) for metric in OBJECTIVES for pair in found.pairs if _is_clear(pair, metric)]
    over = f"over {number_of(len(found.pairs), 'pair')}"
    notes += [f"Beyond doubt (p-values Holm-adjusted {over}):"] if clear else [f"No difference is beyond doubt {over}."]
    notes += clear
    notes += [f"{entry.method}: {entry.reason}." for entry in found.entries if entry.chosen is None]
    notes += [f"{method} is left out: {reason}" for method, reason in tournament.left_out.items()]
    notes += [f"{method} stopped midway: {reason}" for method, reason in tournament.failed.items()]
    return notes


def _is_clear(pair: Pair, metric: str) -> bool:
    return verdict(metric, pair.differences[metric]) != "unclear"


def _sentence(pair: Pair, metric: str) -> str:
    difference = pair.differences[metric]
    than = f"{pair.one} is {verdict(metric, difference)} than {pair.other} in {METRICS[metric].label}"
    return f"{than}: {claim(metric, difference).removesuffix(': worse')}"
