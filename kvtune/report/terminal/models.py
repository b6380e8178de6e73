"""What ``kvtune models`` prints: what each needs and how to get its weights; and what a check of one has found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.models.availability import Presence
from kvtune.report.terminal.tables import add_numbers, fitting, plain_table
from kvtune.text import visible

if TYPE_CHECKING:
    from kvtune.captioning.model_check import ModelCheck


def models_view(presences: Sequence[Presence], console: Console) -> list[RenderableType]:
    """A table of the models, their families where there is room; then a line for each that is here and each that is
    not. To be printed unwrapped."""
    table = fitting([_table(presences, family) for family in (True, False)], console)
    lines = [f"{each.name} is in {each.path}" for each in presences if each.state == "here"]
    lines += [f"{each.name}: {each.path}: {each.problem}" for each in presences if each.state == "incomplete"]
    lines += [f"get {each.name}: {each.command}" for each in presences if each.state == "missing"]
    return [table, "", *(Text(visible(line)) for line in lines)]


def _table(presences: Sequence[Presence], family: bool) -> Table:
    table = plain_table()
    table.add_column("model", no_wrap=True)
    if family:
        table.add_column("family", no_wrap=True)
    add_numbers(table, ("size", "GPU"))
    for heading in ("preset", "weights"):
        table.add_column(heading, no_wrap=True)
    for each in presences:
        size = f"{each.billions:.1f} B" if each.billions else ""
        memory = f"{each.gpu_gib:.0f} GiB" if each.gpu_gib else "none"
        cells = [each.name, *([each.title] if family else []), size, memory, each.published_preset or "", each.state]
        table.add_row(*cells)
    return table


def check_lines(checked: "ModelCheck") -> list[str]:
    """Return what ``kvtune models check`` prints."""
    heads = f"{checked.heads} heads, {checked.kv_heads} of keys and values"
    ranges = ", ".join(f"{first} to {end - 1}" for first, end in checked.visual_ranges[:4])
    ranges += ", ..." if len(checked.visual_ranges) > 4 else ""
    places = "places in the picture not known" if checked.places is None else f"{checked.places} with a place"
    memory = f"{_size(checked.weights_gib)} of weights"
    if checked.peak_gib is not None:
        memory += f", {_size(checked.peak_gib)} at most on {checked.device}"
    speed = f"{checked.tokens} tokens in {checked.seconds:.2f} s by generate(), the prompt included"
    lines = [
        ("model", f"{checked.name} ({checked.family}), {checked.id}"),
        ("revision", checked.revision or "none, a local folder"),
        ("runs on", f"{checked.device} in {checked.dtype}"),
        ("layers", f"{checked.layers}, {heads}"),
        ("visual tokens", f"{checked.visual_tokens} of {checked.prompt_tokens} of the prompt, positions {ranges}"),
        ("", places),
        ("memory", memory),
        ("question", checked.prompt),
        ("caption", checked.caption),
        ("speed", speed),
    ]
    for dtype in dict.fromkeys(proof.dtype for proof in checked.proofs):
        for method in dict.fromkeys(proof.method for proof in checked.proofs):
            own = [proof for proof in checked.proofs if (proof.dtype, proof.method) == (dtype, method)]
            equal = sum(proof.first_difference is None for proof in own)
            lines.append((method or "no method", f"{equal} of {len(own)} captions equal in {dtype}"))
    lines += [(method, f"cannot serve this model: {why}") for method, why in checked.refused.items()]
    lines.append(("verdict", checked.verdict))
    return [f"{key:<14}{found}" for key, found in lines]


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"
