"""A study in the terminal: what it is, the scatter, the table, the choice."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary
from kvtune.report import facts
from kvtune.report.cells import number
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.terminal.length_control import cut_table
from kvtune.report.terminal.scatter import scatter
from kvtune.report.terminal.tables import WIDEST, listed
from kvtune.report.terminal.trials import front_rows, trials_table
from kvtune.text import visible


def front_view(
    summary: StudySummary,
    chosen: Choice,
    console: Console,
    overlays: Sequence[OverlayPoint] = (),
    *,
    every: bool = False,
) -> RenderableType:
    """Return what ``kvtune pareto`` prints.

    Parameters
    ----------
    chosen
        What ``kvtune export`` would take.
    console
        Where it will be printed: its width, encoding and colours decide the layout.
    overlays
        Results of other methods.
    every
        List all trials, not the front alone.
    """
    ascii_only = console.options.ascii_only
    parts: list[RenderableType] = [Text(summary.study, style="bold")]
    parts += [
        Text(visible(sentence)) for sentence in (facts.subject(summary), facts.progress(summary), facts.volume(summary))
    ]
    picture = scatter(summary, chosen.trial, overlays, width=min(console.width, WIDEST), ascii_only=ascii_only)
    if picture:
        parts += [Text(), picture]
    rows = summary.settings if every else front_rows(summary, chosen.trial)
    if rows:
        parts += [Text(), trials_table(summary, chosen.trial, console, overlays, rows=rows)]
    cuts = cut_table(summary, console)
    if cuts is not None:
        parts += [Text(), Text("The baseline's captions cut short, to compare with settings that say less"), cuts]
    return Group(*parts, Text(), listed(_notes(summary, chosen, overlays, every)))


def _notes(summary: StudySummary, chosen: Choice, overlays: Sequence[OverlayPoint], every: bool) -> list[str]:
    notes = []
    if any(trial.intervals for trial in summary.trials):
        notes.append("Under the rates: 95 % intervals")
    if not every:
        notes += facts.same_rates(summary, chosen.trial)
    shared = summary.shared_parameters
    if shared:
        notes.append("In all trials: " + ", ".join(f"{name} {number(value)}" for name, value in shared.items()))
    if summary.baseline is None:
        notes.append("The baseline is not judged yet.")
    if chosen.trial is None:
        notes.append(f"Nothing chosen: {chosen.reason}")
    else:
        notes.append(f"Chosen: trial {chosen.trial}, {chosen.reason}")
        notes += facts.against_baseline(summary, chosen.trial)
    sentences = (
        facts.luck(summary),
        facts.ties(summary, chosen.trial),
        facts.racing(summary),
        facts.floors(summary),
        facts.length_flags(summary, chosen.trial),
        facts.at_limit(summary, chosen.trial),
        *facts.caption_notes(summary),
        *(f"{point.label}: {note.text}" for point in overlays for note in point.notes),
    )
    notes += [note for note in sentences if note]
    notes += sorted({f"Reported: {point.source}" for point in overlays if point.reported})
    return notes
