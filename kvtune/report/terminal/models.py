"""What ``kvtune models`` prints: what each model needs, where its weights are, how to get those that are missing."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from kvtune.models.availability import Presence
from kvtune.report.terminal.tables import plain_table
from kvtune.text import visible


def models_view(presences: Sequence[Presence]) -> list[RenderableType]:
    """A table of the models, then a line for each that is here and each that is not; to be printed unwrapped."""
    table = plain_table()
    for heading, justify in (("model", "left"), ("family", "left"), ("size", "right"), ("GPU", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("preset", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for each in presences:
        size = f"{each.billions:.1f} B" if each.billions else ""
        memory = f"{each.gpu_gib:.0f} GiB" if each.gpu_gib else "none"
        table.add_row(each.name, each.title, size, memory, each.published_preset or "", each.state)
    lines = [f"{each.name} is in {each.path}" for each in presences if each.state == "here"]
    lines += [f"{each.name}: {each.path}: {each.problem}" for each in presences if each.state == "incomplete"]
    lines += [f"get {each.name}: {each.command}" for each in presences if each.state == "missing"]
    return [table, "", *(Text(visible(line)) for line in lines)]
