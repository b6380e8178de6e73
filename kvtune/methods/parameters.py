"""What a method says of each of its parameters: what it may be, and where a search looks for it.

A search space made for any model, the scaling of layers between models, checks and help follow from this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from kvtune.errors import RequestError
from kvtune.text import quoted

Kind = Literal["number", "whole", "layer", "start_layer", "end_layer", "flag", "choice", "list"]

_KEY = "kvtune"
"""Where a dataclass field keeps what is declared of it."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes
    ----------
    kind
        ``number`` or ``whole`` number; ``layer``, a 0-based layer; ``start_layer`` and ``end_layer``, a range of layers
        with its end excluded; ``flag``; ``choice`` among words; ``list``, of whatever the method checks itself.
    low, high
        What the method takes, ends included; None is no bound. Layers are bounded by the model.
    choices
        The words of a ``choice``.
    search
        Low, high and step of the range that a search takes by default, or what it is held at; None is the default
        value. The range of layers follows from the model.
    log
        Whether it is searched on a logarithmic scale.
    layer_split
        Share of a model's layers below which a search space has a ``start_layer``, and from which on an ``end_layer``.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    search: tuple[float, float, float | None] | None = None
    log: bool = False
    layer_split: float = 0.5

    @property
    def is_layer(self) -> bool:
        return self.kind in ("layer", "start_layer", "end_layer")

    @property
    def is_whole(self) -> bool:
        return self.kind == "whole" or self.is_layer

    @property
    def is_numeric(self) -> bool:
        return self.kind == "number" or self.is_whole

    def middle(self, n_layers: int) -> float | None:
        """A value from the middle of what a search tries, layers as wide as they go; None for what it does not vary."""
        of_layers = {"start_layer": 0, "end_layer": n_layers, "layer": n_layers // 2}
        if self.kind in of_layers:
            return of_layers[self.kind]
        if self.search is None:
            return None
        low, high, _ = self.search
        return int((low + high) / 2) if self.is_whole else (low + high) / 2

    def check(self, name: str, value: Any) -> None:
        """Raise RequestError, which names the parameter, if it cannot be ``value``."""
        if self.is_numeric:
            low, high = 0 if self.kind in ("layer", "start_layer") else self.low, self.high
            is_one = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
            is_one = is_one and abs(value) < float("inf")
            if not is_one or (low is not None and value < low) or (high is not None and value > high):
                bounds = "" if low is None else f" of at least {low:g}"
                if low is not None and high is not None:
                    bounds = f" from {low:g} to {high:g}"
                what = "whole number" if self.is_whole else "number"
                raise RequestError(f"{name} must be a {what}{bounds}, not {quoted(value)}")
        elif self.kind == "flag" and not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false, not {quoted(value)}")
        elif self.kind == "choice" and value not in self.choices:
            raise RequestError(f"{name} must be one of {', '.join(self.choices)}, not {quoted(value)}")


def number(
    default: float | Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    search: tuple[float, float, float | None] | None = None,
    log: bool = False,
) -> Any:
    """A field that holds a number; see :class:`Parameter`."""
    return _field(default, Parameter("number", low, high, search=search, log=log))


def whole(
    default: int,
    *,
    low: int | None = None,
    high: int | None = None,
    search: tuple[int, int, int | None] | None = None,
    log: bool = False,
) -> Any:
    """A field that holds a whole number."""
    return _field(default, Parameter("whole", low, high, search=search, log=log))


def layer(default: int) -> Any:
    """A field that holds a layer, 0-based."""
    return _field(default, Parameter("layer"))


def start_layer(default: int, split: float = 0.5) -> Any:
    """A field for the first layer of a range, 0-based; ``split`` as :attr:`Parameter.layer_split`."""
    return _field(default, Parameter("start_layer", layer_split=split))


def end_layer(default: int, split: float = 0.5) -> Any:
    """A field for the layer after the last of a range."""
    return _field(default, Parameter("end_layer", layer_split=split))


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return _field(default, Parameter("flag"))


def choice(default: str, choices: tuple[str, ...]) -> Any:
    """A field that holds one of some words."""
    return _field(default, Parameter("choice", choices=choices))


def listed(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds a list, which the method checks itself."""
    return _field(default, Parameter("list"))


def is_index(value: Any) -> bool:
    """Whether it is a whole number from 0 on, as of layers, heads and dimensions in a list."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def declared(method: type) -> Mapping[str, Parameter]:
    """What the fields of a method declare, in their order."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(method) if _KEY in field.metadata}


def _field(default: Any, parameter: Parameter) -> Any:
    return dataclasses.field(default=default, metadata={_KEY: parameter})
