"""How a study's scores depend on each parameter, as tables."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.analysis.importance import ENOUGH_TRIALS, FEWEST_TRIALS, LEVEL
from kvtune.analysis.sensitivity import Sensitivity, Sweep
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.methods import CHOICE
from kvtune.report.cells import LENGTH, interval, number, rate
from kvtune.report.terminal.tables import add_numbers, fitting, plain_table
from kvtune.statistics.front import front
from kvtune.study.study_folder import StudyFolder
from kvtune.text import visible

MOST_OFFERED = 3
"""Settings that are offered to be searched."""


def sensitivity_view(found: Sensitivity, console: Console) -> RenderableType:
    """Return a table for each parameter and what matters most; on a narrow console, intervals under their rates."""
    held = ", ".join(f"{name} {number(value)}" for name, value in found.around.items())
    parts: list[RenderableType] = [
        Text(visible(f"{found.study}: one parameter varied around trial {found.trial} ({found.rule}): {held}")),
    ]
    for sweep in found.sweeps:
        parts += [
            Text(),
            fitting([_table(sweep, "{} ({})"), _table(sweep, "{}\n{}")], console),
        ]
    parts.append(Text())
    trials = f"complete trials of {found.around[CHOICE]}" if CHOICE in found.around else "complete trials"
    if found.importance is None:
        parts.append(Text(f"Importance: not before {FEWEST_TRIALS} {trials}; of fewer it is little but chance"))
    for objective, shares in (found.importance or {}).items():
        ranked = sorted(shares.items(), key=lambda share: -share[1])
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked) + _beyond_chance(found, objective)
        parts.append(Text(f"Importance for {METRICS[objective].label} (PED-ANOVA): {told}"))
    if found.importance is not None and found.complete is not None and found.complete < ENOUGH_TRIALS:
        parts.append(
            Text(f"From {found.complete} {trials}; below {ENOUGH_TRIALS}, close shares may be in the wrong order.")
        )
    return Group(*parts)


def _beyond_chance(found: Sensitivity, objective: str) -> str:
    """Which parameters matter more than chance makes any look; nothing where that was not measured."""
    if found.importance_p is None:
        return ""
    sure = [name for name, p_value in found.importance_p[objective].items() if p_value <= LEVEL]
    if not sure:
        return "; all of it may be chance"
    return f"; more than chance: {', '.join(sure)}"


def offers(found: Sensitivity, folder: StudyFolder) -> list[str]:
    """What to do with the best of the settings that are no trial and dominate some of the front; what is indented is to
    be copied, and not to be wrapped."""
    settings = [
        (sweep.parameter, point)
        for sweep in found.sweeps
        for point in sweep.points
        if point.dominates and point.trial is None
    ]
    if not settings:
        return []
    best = front([(point.metrics.chair_s, point.metrics.f1) for _, point in settings])[:MOST_OFFERED]
    tried = sum(len(sweep.points) for sweep in found.sweeps)
    told = [
        f"\nSettings that dominate trials on the front, on these images: {len(settings)} of {tried}; the best of so "
        "many is partly luck.",
        "To have them as trials, which validate and export know, repeat the search with more --trials and",
    ]
    for index in best:
        name, point = settings[index]
        setting = found.around | {name: point.value}
        told.append(f"  --enqueue {','.join(f'{each}={setting[each]}' for each in found.searched)}")
    name, point = settings[best[0]]
    told += ["or take one as it is:", f"  kvtune export {folder.argument} --select sensitivity:{name}={point.value}"]
    return told


def _table(sweep: Sweep, cell: str) -> Table:
    """``cell`` formats a rate with its interval."""
    table = plain_table(gap=2)
    add_numbers(table, [sweep.parameter, *(METRICS[metric].label for metric in (*OBJECTIVES, *LENGTH))])
    table.add_column("", no_wrap=True)
    for point in sweep.points:
        cells = [number(point.value)]
        for metric in OBJECTIVES:
            cells.append(cell.format(rate(point.metrics[metric]), interval(point.intervals[metric])))
        cells += [rate(point.metrics[metric]) for metric in LENGTH]
        what = ["held"] if point.value == sweep.held else [] if point.trial is None else [f"trial {point.trial}"]
        what += [f"dominates {', '.join(map(str, point.dominates))}"] if point.dominates else []
        cells.append(", ".join(what))
        table.add_row(*cells)
    return table
