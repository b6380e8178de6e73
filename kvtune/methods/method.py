"""What every method is: frozen parameters, and per-row state while a batch decodes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kvtune.errors import RequestError
from kvtune.methods.row_state import RowState
from kvtune.text import quoted

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_REGISTRY: dict[str, type[Method]] = {}


@dataclasses.dataclass(frozen=True)
class Method(ABC):
    """A training-free intervention with parameters.

    A method is a frozen dataclass whose fields are its parameters. ``with method(model): ...`` applies it to a
    Hugging Face model and undoes it on exit.
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            _REGISTRY[cls.name] = cls

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
    def from_parameters(cls, parameters: dict[str, Any]) -> Self:
        """Build the method from named parameters.

        Raises
        ------
        RequestError
            If a name is unknown, a needed one is missing, or a value is out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(parameters) - set(fields))
        if unknown:
            raise RequestError(f"{cls.name} has no parameter {quoted(unknown[0])}; it has {', '.join(fields)}")
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [name for name in needed if name not in parameters]
        if missing:
            raise RequestError(f"{cls.name} needs the parameter {quoted(missing[0])}")
        return cls(**parameters)

    def check_layers(self, n_layers: int) -> None:  # noqa: B027 - a method without layer parameters fits every model
        """Raise RequestError if the method does not fit a decoder of ``n_layers`` layers."""

    @property
    def prefix_key(self) -> Hashable:
        """The part of the parameters that changes the prompt's keys and values; None if the prompt is untouched.

        Requests for the same image whose methods have equal keys share one prefill.
        """
        return None

    def edit_prefix(self, keys: list[Tensor], values: list[Tensor]) -> None:  # noqa: B027
        """Change one prompt's keys and values in place, once, right after the prefill.

        Parameters
        ----------
        keys, values
            One tensor a layer, [1, kv_heads, prompt tokens, head_dim], without padding.
        """

    @classmethod
    @abstractmethod
    def row_state(cls, n_rows: int, n_layers: int, device: Any) -> RowState:
        """State for a batch of ``n_rows`` rows of a decoder with ``n_layers`` layers; no row does anything yet."""


def method_names() -> list[str]:
    """Names of the methods there are."""
    return sorted(_REGISTRY)


def get_method(name: str) -> type[Method]:
    """The method class called ``name``.

    Raises
    ------
    RequestError
        If there is none.
    """
    if name not in _REGISTRY:
        raise RequestError(f"unknown method {quoted(name)}; there is {', '.join(method_names())}")
    return _REGISTRY[name]
