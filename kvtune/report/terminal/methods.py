"""What ``kvtune methods`` prints: a method each with a table of its parameters and the settings that are published."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from kvtune.report.cells import number
from kvtune.report.terminal.tables import plain_table

ACTS_FROM = {
    "generated": "acts on generated tokens",
    "last_prompt_token": "acts from the last prompt token on",
    "after_image": "acts from the first token after the image on",
}
_LONGEST = 30
"""Characters of a value; lists may be longer, and ``--json`` has them whole."""


def methods_view(documents: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the methods of :func:`kvtune.report.data.methods.method_documents`, one after the other."""
    return Group(*(part for document in documents for part in _parts(document)))


def _parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text.assemble((document["name"], "bold"), f": {ACTS_FROM[document['acts_from']]}")
    yield Padding(Text(document["description"]), (0, 0, 0, 2))
    table = plain_table(gap=2)
    for heading in ("parameter", "default", "it takes", "searched by default"):
        table.add_column(heading, overflow="fold")
    for parameter in document["parameters"]:
        default = parameter["default"]
        table.add_row(
            parameter["name"], "-" if default is None else _shown(default), _takes(parameter), _searched(parameter)
        )
    yield Padding(table, (0, 0, 0, 2))
    for one in document["published"]:
        setting = ", ".join(f"{name} {_shown(value)}" for name, value in one["parameters"].items())
        yield Padding(Text(f"published for {one['model']}: {setting} ({one['source']})"), (0, 0, 0, 2))
    yield Text()


def _takes(parameter: Mapping[str, Any]) -> str:
    kind, low, high = parameter["kind"], parameter["low"], parameter["high"]
    if kind == "choice":
        return ", ".join(parameter["choices"])
    if kind == "flag":
        return "yes, no"
    if kind == "list":
        return "see its help in Python"
    if kind in ("layer", "start_layer", "end_layer"):
        return "a layer of the model"
    what = "whole numbers" if kind == "whole" else "numbers"
    if low is None and high is None:
        return what
    return f"{what} from {low:g}" + ("" if high is None else f" to {high:g}")


def _searched(parameter: Mapping[str, Any]) -> str:
    search, kind = parameter["search"], parameter["kind"]
    if kind == "layer":
        return "all layers"
    if kind in ("start_layer", "end_layer"):
        side = "below" if kind == "start_layer" else "from"
        return f"{side} {100 * parameter['layer_split']:g} % of layers"
    if search is None:
        return "held"
    step = f", step {search['step']:g}" if search["step"] else ""
    return f"{search['low']:g} to {search['high']:g}{step}" + (", log" if search["log"] else "")


def _shown(value: Any) -> str:
    text = number(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
