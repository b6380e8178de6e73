"""Search spaces: which parameters are searched, over which ranges, and which are held."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_type_hints

import yaml
from pydantic import Field, model_validator

import kvtune
from kvtune.errors import RequestError
from kvtune.schema import Document, validated

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Kind = Literal["float", "int"]


class Range(Document):
    """The range of one parameter, both ends included.

    ``step`` makes it discrete, ``log`` searches it on a logarithmic scale; a range has one or the other.
    """

    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("a range has step or log, not both")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, not {self.low:g}")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"step {self.step:g} does not lead from {self.low:g} to {self.high:g}")
        return self

    def contains(self, value: float) -> bool:
        """Whether ``value`` is in the range, and on one of its steps where it has them."""
        if not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-6

    def grid(self, kind: Kind) -> list[float] | None:
        """The values that the grid sampler tries; None for a continuous range without a step.

        Whole numbers need no step: they go one by one, and on a logarithmic scale they double (2, 4, 8, ...).
        """
        if self.step is not None:
            count = round((self.high - self.low) / self.step) + 1
            values = [round(self.low + index * self.step, 10) for index in range(count)]
        elif kind == "float":
            return None
        elif self.log:
            values = [self.low * 2**power for power in range(64) if self.low * 2**power <= self.high]
        else:
            values = [float(value) for value in range(int(self.low), int(self.high) + 1)]
        return [int(value) for value in values] if kind == "int" else values


class SearchSpace(Document):
    """What a search varies: ranges by parameter name, and the values of those it does not vary."""

    method: str
    parameters: dict[str, Range] = Field(min_length=1)
    fixed: dict[str, Any] = {}

    def kinds(self) -> dict[str, Kind]:
        """For each searched parameter, whether its values are whole numbers, as the method declares."""
        from kvtune.methods import get_method

        hints = get_type_hints(get_method(self.method))
        return {name: "int" if hints.get(name) is int else "float" for name in self.parameters}

    def check(self, n_layers: int) -> None:
        """Check that every point of the space is a setting that the method takes on a model of ``n_layers`` layers.

        Raises
        ------
        RequestError
            If a parameter is unknown or missing, a range exceeds what the method allows or the model has, or the
            layer ranges can cross: the start layer must stay in [0, L/2) and the end layer in [L/2, L].
        """
        from kvtune.methods import get_method

        method = get_method(self.method)
        both = sorted(set(self.parameters) & set(self.fixed))
        if both:
            raise RequestError(f"{both[0]} is under both parameters and fixed; keep one of the two")
        for name, kind in self.kinds().items():
            searched = self.parameters[name]
            ends = [searched.low, searched.high, *([] if searched.step is None else [searched.step])]
            if kind == "int" and any(end != int(end) for end in ends):
                raise RequestError(f"{name} takes whole numbers, so its low, high and step must be whole numbers")
        # The ranges of a method are box constraints, so its own checks at the corners of the space are exhaustive.
        ends_of = {name: dict.fromkeys([found.low, found.high]) for name, found in self.parameters.items()}
        for corner in itertools.product(*ends_of.values()):
            method.from_parameters(self.settings(dict(zip(ends_of, corner, strict=True)))).check_layers(n_layers)
        start, end = self.parameters.get("start_layer"), self.parameters.get("end_layer")
        if start is not None and start.high >= n_layers / 2:
            raise RequestError(f"start_layer must stay below half of the model's {n_layers} layers, not {start.high:g}")
        if end is not None and end.low < n_layers / 2:
            raise RequestError(f"end_layer must be at least half of the model's {n_layers} layers, not {end.low:g}")

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The method's parameters at a point of the space: those searched, in their own type, and those fixed."""
        kinds = self.kinds()
        typed = {name: int(value) if kinds.get(name) == "int" else float(value) for name, value in params.items()}
        return typed | self.fixed

    def snapped(self, name: str, value: float) -> float:
        """A value of Optuna's on the exact step: its own arithmetic leaves 0.15000000000000002."""
        return value if self.parameters[name].step is None else round(value, 10)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The space as Optuna's distributions, in the order of the file."""
        from optuna.distributions import FloatDistribution, IntDistribution

        made: dict[str, BaseDistribution] = {}
        for name, kind in self.kinds().items():
            searched = self.parameters[name]
            if kind == "int":
                step = int(searched.step or 1)
                made[name] = IntDistribution(int(searched.low), int(searched.high), log=searched.log, step=step)
            else:
                made[name] = FloatDistribution(searched.low, searched.high, log=searched.log, step=searched.step)
        return made

    def point(self, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """The searched part of a full set of the method's parameters; None if that setting is not in the space."""
        from kvtune.methods import get_method

        if any(
            name not in parameters or not found.contains(parameters[name]) for name, found in self.parameters.items()
        ):
            return None
        point = {name: parameters[name] for name in self.parameters}
        rebuilt = get_method(self.method).from_parameters(self.settings(point))
        return point if rebuilt.parameters() == dict(parameters) else None

    def grid(self) -> dict[str, list[float]]:
        """The values that the grid sampler tries for each parameter.

        Raises
        ------
        RequestError
            If a continuous parameter has no step.
        """
        found = {name: self.parameters[name].grid(kind) for name, kind in self.kinds().items()}
        for name, values in found.items():
            if values is None:
                raise RequestError(
                    f"the grid sampler needs a step for {name}; write one in the space, or use --sampler tpe"
                )
        return {name: values for name, values in found.items() if values is not None}


def load_space(path: str | Path) -> SearchSpace:
    """Read a search space from a YAML file.

    Raises
    ------
    RequestError
        If the file is missing, is not YAML, or a key is unknown, missing or wrong.
    """
    path = Path(path).expanduser()
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"search space file {path} does not exist; those that ship are in {spaces_folder()}"
        ) from None
    except OSError as error:
        raise RequestError(f"search space file {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"search space file {path} is not valid YAML: {error}") from None
    return validated(SearchSpace, data, f"search space {path}")


def spaces_folder() -> Path:
    """The folder of the spaces that ship: in an installed wheel within the package, in the repository beside it."""
    package = Path(kvtune.__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def space_for(method: str, name: str, n_layers: int) -> SearchSpace:
    """The space that ships for a model family, or one made for the model's layers where none fits.

    Parameters
    ----------
    method
        The method's name.
    name
        The family's search space, a file name in :func:`spaces_folder` without its ending.
    n_layers
        Decoder layers of the model; a space made for another number of layers is not used.
    """
    path = spaces_folder() / f"{name}.yaml"
    if path.is_file():
        shipped = load_space(path)
        end = shipped.parameters.get("end_layer")
        if shipped.method == method and end is not None and end.high == n_layers:
            return shipped
    return default_space(method, n_layers)


def default_space(method: str, n_layers: int) -> SearchSpace:
    """The ranges of the spaces that ship, for any number of layers.

    Raises
    ------
    RequestError
        If ``method`` is not one that a default space is known for.
    """
    if method != "kvsmooth":
        raise RequestError(f"no search space ships for the method {method!r}; write one and name it with --space FILE")
    half = (n_layers + 1) // 2
    return SearchSpace(
        method=method,
        parameters={
            "lambda_ref": Range(low=0.0, high=1.0, step=0.05),
            "queue_length": Range(low=2, high=64, log=True),
            "clip_width": Range(low=0.0, high=0.5, step=0.05),
            "start_layer": Range(low=0, high=half - 1),
            "end_layer": Range(low=half, high=n_layers),
        },
        fixed={"target": "kv", "adaptive": True},
    )
