"""What every method is: frozen parameters, what it declares of itself, and the state of rows while a batch decodes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kvtune.errors import RequestError
from kvtune.methods.parameters import Parameter, declared
from kvtune.methods.row_state import ActsFrom, RowState
from kvtune.text import not_there, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvtune.methods.decoder import Decoder
    from kvtune.methods.facts import AnyFact

_REGISTRY: dict[str, type[Method]] = {}


@dataclasses.dataclass(frozen=True)
class Published:
    """A setting that a method's authors publish for a model.

    Attributes
    ----------
    model
        kvtune's name of the model.
    parameters
        Those that the source gives; the others are the method's defaults.
    source
        Where it stands.
    """

    model: str
    parameters: Mapping[str, Any]
    source: str


@dataclasses.dataclass(frozen=True)
class Method(ABC):
    """A training-free intervention with parameters.

    A method is a frozen dataclass whose fields are its parameters, declared by the functions of
    :mod:`kvtune.methods.parameters`. ``with method(model): ...`` applies it to a Hugging Face model and undoes it on
    exit.
    """

    name: ClassVar[str]

    acts_from: ClassVar[ActsFrom] = "generated"
    """Prompt tokens before are left alone, so that all methods and settings share an image's prompt."""

    published: ClassVar[tuple[Published, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

    def __post_init__(self) -> None:
        for name, parameter in declared(type(self)).items():
            parameter.check(name, getattr(self, name))
        start, end = getattr(self, "start_layer", None), getattr(self, "end_layer", None)
        if start is not None and end is not None and end <= start:
            raise RequestError(f"end_layer must be greater than start_layer, but the range is {start} to {end}")

    def __call__(self, model: PreTrainedModel) -> AbstractContextManager[PreTrainedModel]:
        """Apply the method to ``model`` for the duration of a ``with`` block.

        Raises
        ------
        RequestError
            If a parameter does not fit the model (a layer range outside it), or the model is not supported.
        """
        from kvtune.methods.attach import attach

        return attach(model, self)

    def parameters(self) -> dict[str, Any]:
        """The parameters by name, as a space or a preset holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def declared(cls) -> Mapping[str, Parameter]:
        """What each parameter may be, and where a search looks for it."""
        return declared(cls)

    @classmethod
    def known_for(cls, model_names: Iterable[str]) -> dict[str, Any]:
        """The parameters' values where a search does not vary them: published for a model, or the defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        known = {name: value for name, value in defaults.items() if value is not dataclasses.MISSING}
        of_model = {one.model: one.parameters for one in cls.published}
        return known | dict(next((of_model[name] for name in model_names if name in of_model), {}))

    @classmethod
    def published_for(cls, model_name: str, n_layers: int) -> Published | None:
        """The setting that is published for this very model; None if there is none, or if it does not fit so many
        layers, because a folder may have any name."""
        found = next((one for one in cls.published if one.model == model_name), None)
        if found is not None:
            try:
                cls.from_parameters(found.parameters).check_layers(n_layers)
            except RequestError:
                return None
        return found

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Build the method from named parameters.

        Raises
        ------
        RequestError
            If a name is unknown, a needed one is missing, or a value is out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(parameters) - set(fields))
        if unknown:
            raise RequestError(f"{cls.name}: {not_there('parameter', unknown[0], fields)}")
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [name for name in needed if name not in parameters]
        if missing:
            raise RequestError(f"{cls.name} needs the parameter {quoted(missing[0])}")
        return cls(**parameters)

    @classmethod
    def middle_for(cls, model_names: Iterable[str], n_layers: int, given: Mapping[str, Any] | None = None) -> Self:
        """A setting from the middle of what a search tries, layers as wide as they go, for a look at the method.

        Parameters
        ----------
        model_names, given
            What it has where a search does not vary it: what is given, else what is known for the model.

        Raises
        ------
        RequestError
            If a parameter is known from nowhere.
        """
        middle = {name: parameter.middle(n_layers) for name, parameter in cls.declared().items()}
        varied = {name: value for name, value in middle.items() if value is not None}
        return cls.from_parameters({**cls.known_for(model_names), **varied, **(given or {})})

    def check_layers(self, n_layers: int) -> None:
        """Raise RequestError if the method reaches beyond a decoder of ``n_layers`` layers."""
        values = self.parameters()
        for name, parameter in self.declared().items():
            value = values[name]
            if parameter.kind == "layer" and value >= n_layers:
                raise RequestError(f"{name} can be at most {n_layers - 1}, for the model has {n_layers} layers")
            if parameter.kind == "end_layer" and value > n_layers:
                start = f"layers {values['start_layer']} to {value}" if "start_layer" in values else f"{name} {value}"
                raise RequestError(
                    f"{start} reach outside the model, which has {n_layers}; {name} can be at most {n_layers}"
                )

    def check_model(self, decoder: Decoder) -> None:
        """Raise RequestError if the method cannot serve a model with this decoder."""
        self.check_layers(decoder.n_layers)

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that act on a row, in order: this one, or those of a stack."""
        return (self,)

    @property
    def facts(self) -> tuple[AnyFact, ...]:
        """What it must know of a prompt's forward pass."""
        return ()

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """Bytes of device memory for what is remembered of a row about a prompt of that length, but for small things.

        What is worked out in a step counts too. A grid holds it for all of its rows, whatever method each has.
        """
        return 0

    @classmethod
    @abstractmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> RowState[Any]:
        """State for a batch of ``n_rows`` rows of a decoder; no row does anything yet."""


def method_names() -> list[str]:
    """Names of the methods there are."""
    return sorted(_REGISTRY)


def registered(name: str) -> type[Method]:
    """The class of the one method called ``name``.

    Raises
    ------
    RequestError
        If there is none.
    """
    if name not in _REGISTRY:
        raise RequestError(f"{not_there('method', name, method_names())}, and stacks of them as kvsmooth+pai")
    return _REGISTRY[name]
