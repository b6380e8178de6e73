"""What the tables of the KVSmooth paper compare, and with which parameters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from kvtune.chair import Rates
from kvtune.errors import RequestError
from kvtune.methods import KVSmooth, Method, get_method
from kvtune.models.published import MODELS
from kvtune.presets import Preset, load_preset

if TYPE_CHECKING:
    from kvtune.models import Family

Table = Literal["table1", "table4"]
SettingName = Literal[
    "opera", "baseline", "constant", "adaptive", "keys", "attention_output", "pai", "sparc", "middle_layers"
]

PAPER_MODELS = ("llava-1.5", "minigpt4", "instructblip")
"""The models of the paper's tables."""

RIVALS: tuple[SettingName, ...] = ("pai", "sparc", "middle_layers")
"""Other methods of the paper's table 1, with what their authors publish: they are no rows for other models."""

TABLES: dict[Table, tuple[SettingName, ...]] = {
    "table1": ("opera", "baseline", "constant", "adaptive", *RIVALS),
    "table4": ("baseline", "attention_output", "keys", "constant", "adaptive"),
}
"""The rows of each table. ``opera`` is the baseline with OPERA's question, which is no row of the paper's: OPERA's own
greedy captions of the same images are published for LLaVA-1.5 and MiniGPT-4, so that it tells whether weights,
templates and preprocessing are the evaluations'. InstructBLIP's are of other images."""

LAMBDAS = tuple(round(tenth / 10, 1) for tenth in range(1, 10))
"""Constant factors that are tried: the paper compares with the best constant one and does not say which that is."""


def published_preset(family: "Family") -> Preset:
    """The paper's parameters for a family.

    Raises
    ------
    RequestError
        If the paper has none.
    """
    published = MODELS.get(family.name)
    if published is None or published.preset is None:
        raise RequestError(
            f"the paper has no parameters for {family.title}, so there is nothing to reproduce: its models are "
            f"{', '.join(PAPER_MODELS)}; kvtune search finds parameters for others"
        )
    return load_preset(published.preset)


def published_parameters(preset: Preset, layers: int) -> dict[str, Any]:
    """A published preset's parameters for a model of its family with any number of layers.

    Where the model has other layers than the preset was published for, all but the first three and the last are
    smoothed, as in the paper (appendix D.2), and fewer are left out of a model that has not so many.
    """
    parameters = preset.method().parameters()
    if layers == preset.model.layers:
        return parameters
    start = min(3, (layers - 1) // 2)
    return parameters | {"start_layer": start, "end_layer": max(start + 1, layers - 1)}


def constant_parameters(published: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The published layers smoothed by one factor for every token ("w/o Ada.")."""
    return {**published, "lambda_ref": factor, "adaptive": False}


def rows(table: Table, model: str, layers: int) -> list[SettingName]:
    """The rows of a table for a model: all but those of rivals whose setting is not known for it."""
    return [name for name in TABLES[table] if name not in RIVALS or get_method(name).published_for(model, layers)]


def method_of(name: SettingName, model: str, layers: int, published: Mapping[str, Any], factor: float) -> Method | None:
    """The method of a row; None for no method.

    Parameters
    ----------
    model, layers
        kvtune's name of the model, and its number of layers.
    published
        From :func:`published_parameters`.
    factor
        The constant factor that was chosen.
    """
    if name in ("opera", "baseline"):
        return None
    if name == "constant":
        return KVSmooth(**constant_parameters(published, factor))
    if name in RIVALS:
        rival = get_method(name).published_for(model, layers)
        assert rival is not None
        return get_method(name).from_parameters(rival.parameters)
    target = {"adaptive": "kv", "keys": "k", "attention_output": "attention_output"}[name]
    return KVSmooth(**{**published, "target": target})


def choose_factor(scores: Mapping[float, Rates]) -> float:
    """The constant factor with the highest F1; of equal ones that with the lower CHAIR_S, then the smaller factor."""
    return max(scores, key=lambda factor: (scores[factor].f1, -scores[factor].chair_s, -factor))


def opera_prompt() -> str:
    """The question of OPERA's evaluation."""
    from kvtune.models.family import OPERA_PROMPT

    return OPERA_PROMPT
