"""A search space: which parameters are searched, over which ranges, and which are held; and its fit to a model."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PlainValidator

from kvtune.errors import RequestError
from kvtune.schema import Document, Parameters
from kvtune.spaces.ranges import Range, is_whole
from kvtune.text import did_you_mean, quoted

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from kvtune.methods import Alternatives
    from kvtune.methods.method import Method
    from kvtune.methods.parameters import Parameter


def _method_names(value: Any) -> str | list[str]:
    if isinstance(value, str) or (
        isinstance(value, list) and len(value) > 1 and all(isinstance(each, str) for each in value)
    ):
        return value
    raise ValueError("it must be a method's name, or a list of two or more")


class SearchSpace(Document):
    """What a search varies: ranges by parameter name, and the values of those it does not vary.

    ``method`` is a name, or a list of alternatives, stacks among them: then every setting has one of these, named by
    its parameter ``method``, and that one's parameters alone. See :class:`kvtune.methods.Alternatives` for what
    parameters are called.

    A space as written in a file leaves open whether ``0`` is a whole number; :meth:`fitted` settles that, and checks
    the space against its method and a model. All other methods want a fitted space.
    """

    method: Annotated[str | list[str], PlainValidator(_method_names)]
    parameters: dict[str, Range] = Field(min_length=1)
    fixed: Parameters = Field(default_factory=dict)

    @property
    def alternatives(self) -> "Alternatives":
        """The methods that a setting may have, one of them."""
        return _alternatives((self.method,) if isinstance(self.method, str) else tuple(self.method))

    @property
    def parts(self) -> "dict[str, SearchSpace]":
        """A space of one method for each alternative, by the methods' own names of parameters; or this one alone."""
        if isinstance(self.method, str):
            return {self.method: self}
        return {
            name: SearchSpace.model_construct(
                method=name,
                parameters=self.alternatives.own(name, self.parameters),
                fixed=self.alternatives.own(name, self.fixed),
            )
            for name in self.method
        }

    @staticmethod
    def of_parts(parts: "Mapping[str, SearchSpace]") -> "SearchSpace":
        """The space whose :attr:`parts` these are."""
        from kvtune.methods import CHOICE, Alternatives

        if len(parts) == 1:
            return next(iter(parts.values()))
        together = Alternatives(tuple(parts))
        ranges: dict[str, Range] = {}
        fixed: dict[str, Any] = {}
        for name, part in parts.items():
            ranges |= together.here(name, part.parameters)
            fixed |= together.here(name, part.fixed)
        del ranges[CHOICE], fixed[CHOICE]
        return SearchSpace(method=list(parts), parameters=ranges, fixed=fixed)

    def fitted(self, n_layers: int) -> "SearchSpace":
        """The space for a model of ``n_layers`` decoder layers, every point of it a setting that the method takes.

        Raises
        ------
        RequestError
            If a parameter is unknown or missing, a range exceeds what the method allows or the model has, or the
            layer ranges can cross: the start layer must stay in [0, L/2) and the end layer in [L/2, L], or where the
            method says that its layers are.
        """
        if not self.alternatives.is_choice:
            return _fitted(self, n_layers)
        there = [here for known in self.alternatives.parameters.values() for here in known.values()]
        for name in (*self.parameters, *self.fixed):
            if name not in there:
                raise RequestError(
                    f"{self.alternatives} has no parameter {quoted(name)}{did_you_mean(name, there) or ';'} "
                    f"it has {', '.join(there)}"
                )
        for name, part in self.parts.items():
            if not part.parameters:
                raise RequestError(f"{name} has no parameter that is searched; give one a range, or leave {name} out")
        parts = {}
        for name, part in self.parts.items():
            try:
                parts[name] = _fitted(part, n_layers)
            except RequestError as error:
                raise RequestError(f"{name}: {error}") from None
        return SearchSpace.of_parts(parts)

    def part(self, setting: Mapping[str, Any]) -> "tuple[str, SearchSpace]":
        """The alternative that a setting has, and its space."""
        name = self.alternatives.chosen(setting)
        return name, self.parts[name]

    def searched(self, setting: Mapping[str, Any]) -> dict[str, Range]:
        """The parameters that are searched for settings of this one's method, with their ranges."""
        name, part = self.part(setting)
        known = self.alternatives.parameters[name]
        return {known[own]: one for own, one in part.parameters.items()}

    def method_of(self, setting: Mapping[str, Any]) -> "Method":
        """The method that a full setting is of."""
        return self.alternatives.method(setting)

    def full(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters of the method at a point: those searched, those fixed, and the method's own defaults."""
        from kvtune.methods import get_method

        name, part = self.part(point)
        own = {**self.alternatives.own(name, point), **part.fixed}
        return self.alternatives.here(name, get_method(name).from_parameters(own).parameters())

    def holding(self, own_name: str, value: Any) -> "SearchSpace":
        """The space with a parameter fixed in every alternative that has it, by the methods' own name of it."""
        from kvtune.methods import get_method

        return SearchSpace.of_parts(
            {
                name: SearchSpace(method=name, parameters=part.parameters, fixed={**part.fixed, own_name: value})
                if own_name in get_method(name).declared()
                else part
                for name, part in self.parts.items()
            }
        )

    def samples(self) -> "list[Method]":
        """A method of each alternative, at the low end of every range."""
        from kvtune.methods import get_method

        found = []
        for name, part in self.parts.items():
            lows = {own: searched.low for own, searched in part.parameters.items()}
            found.append(get_method(name).from_parameters({**lows, **part.fixed}))
        return found

    def point(self, setting: Mapping[str, Any]) -> dict[str, Any] | None:
        """The searched part of a full setting; None if that setting is not in the space."""
        from kvtune.methods import CHOICE

        if self.alternatives.is_choice and setting.get(CHOICE) not in self.parts:
            return None
        searched = self.searched(setting)
        point = {name: setting[name] for name in searched if name in setting}
        if len(point) < len(searched) or not all(searched[name].contains(point[name]) for name in point):
            return None
        if self.alternatives.is_choice:
            point = {CHOICE: setting[CHOICE], **point}
        return point if self.full(point) == dict(setting) else None

    def snapped(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point that a sampler gave, on the steps of its ranges exactly."""
        from kvtune.methods import CHOICE

        choice = {CHOICE: params[CHOICE]} if self.alternatives.is_choice else {}
        return choice | {name: one.snapped(params[name]) for name, one in self.searched(params).items()}

    def choice(self) -> "dict[str, BaseDistribution]":
        """Which alternative, as Optuna's distribution by name; nothing where there is one method alone."""
        from optuna.distributions import CategoricalDistribution

        from kvtune.methods import CHOICE

        return {CHOICE: CategoricalDistribution(self.alternatives.names)} if self.alternatives.is_choice else {}

    def distributions(self, setting: Mapping[str, Any] | None = None) -> "dict[str, BaseDistribution]":
        """The space as Optuna's distributions, in the order of the file.

        Parameters
        ----------
        setting
            One of the space, whose method's parameters are wanted; needed where there are alternatives.
        """
        from optuna.distributions import FloatDistribution, IntDistribution

        made: dict[str, BaseDistribution] = self.choice()
        for name, searched in self.searched(setting or {}).items():
            if searched.whole:
                step = int(searched.step or 1)
                made[name] = IntDistribution(int(searched.low), int(searched.high), log=searched.log, step=step)
            else:
                made[name] = FloatDistribution(searched.low, searched.high, log=searched.log, step=searched.step)
        return made

    def grids(self) -> list[dict[str, list[Any]]]:
        """The values that the grid sampler tries for each parameter, for each alternative apart.

        Raises
        ------
        RequestError
            If a continuous parameter has no step.
        """
        from kvtune.methods import CHOICE

        grids: list[dict[str, list[Any]]] = []
        for method in self.parts:
            setting = {CHOICE: method} if self.alternatives.is_choice else {}
            grid: dict[str, list[Any]] = {name: [value] for name, value in setting.items()}
            for name, searched in self.searched(setting).items():
                values = searched.grid()
                if values is None:
                    where = "in the space, in place of log" if searched.log else "in the space"
                    raise RequestError(f"the grid sampler needs a step for {name}: write one {where}, or use tpe")
                grid[name] = values
            grids.append(grid)
        return grids


@cache
def _alternatives(methods: tuple[str, ...]) -> "Alternatives":
    from kvtune.methods import Alternatives

    return Alternatives(methods)


def _fitted(space: SearchSpace, n_layers: int) -> SearchSpace:
    """A space of one method for a model; see :meth:`SearchSpace.fitted`."""
    from kvtune.methods import get_method

    name_of_method = str(space.method)
    method = get_method(name_of_method)
    declared = method.declared()
    ranges: dict[str, Range] = {}
    for name, given in space.parameters.items():
        if name in space.fixed:
            raise RequestError(f"{name} is under both parameters and fixed; keep one of the two")
        if name in declared and not declared[name].is_numeric:
            raise RequestError(f"{name} is not a number and cannot be searched; give it a value under fixed")
        whole = name in declared and declared[name].is_whole
        if whole and not all(is_whole(value) for value in (given.low, given.high, given.step or 1)):
            raise RequestError(f"{name} takes whole numbers, so its low, high and step must be whole numbers")
        ranges[name] = given.of_type(int if whole else float)
    # What a method and a model allow is a range for each parameter, and an end above each start.
    lows, highs = ({name: getattr(found, end) for name, found in ranges.items()} for end in ("low", "high"))
    narrow = lows | {name: highs[name] for name in highs if declared_as(declared, name) == "start_layer"}
    for setting in (lows, highs, narrow):
        method.from_parameters({**setting, **space.fixed}).check_layers(n_layers)
    for name, found in ranges.items():
        kind, split = declared[name].kind, declared[name].layer_split
        share = "half" if split == 0.5 else f"{split:g}"
        if kind == "start_layer" and found.high >= split * n_layers:
            raise RequestError(f"{name} must stay below {share} of the model's {n_layers} layers, not {found.high}")
        if kind == "end_layer" and found.low < split * n_layers:
            raise RequestError(f"{name} must be at least {share} of the model's {n_layers} layers, not {found.low}")
    return SearchSpace(method=name_of_method, parameters=ranges, fixed=space.fixed)


def declared_as(declared: Mapping[str, "Parameter"], name: str) -> str | None:
    """What kind of parameter ``name`` is; None if there is none of the name."""
    return declared[name].kind if name in declared else None
