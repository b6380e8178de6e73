"""Several methods at once, as one: its parameters are theirs, and they act on a row in order."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kvtune.errors import RequestError
from kvtune.methods.decoder import Decoder
from kvtune.methods.method import Method, method_names, registered
from kvtune.methods.parameters import Parameter
from kvtune.methods.row_state import RowState
from kvtune.text import not_there

if TYPE_CHECKING:
    from kvtune.methods.facts import AnyFact

JOIN = "+"
"""Between the methods' names in that of a stack."""

ALL = "all"
"""What stands for every method that there is in a list of methods."""


@dataclasses.dataclass(frozen=True)
class Stack(Method):
    """Methods that act on the same caption, each after the one before; at most one of a kind.

    Made by ``Stack.of(KVSmooth(...), PAI(...))``, or from parameters by the class that ``get_method("kvsmooth+pai")``
    gives. A parameter whose name several of them have is ``METHOD.NAME``.
    """

    kinds: ClassVar[tuple[type[Method], ...]] = ()

    members: tuple[Method, ...]

    @staticmethod
    def of(*methods: Method) -> Stack:
        """The stack of some methods."""
        kind: type[Stack] = stack_of(tuple(type(method) for method in methods))
        return kind(methods)

    def __post_init__(self) -> None:
        """The methods have checked themselves."""

    @property
    def parts(self) -> tuple[Method, ...]:
        return self.members

    @property
    def facts(self) -> tuple[AnyFact, ...]:
        return tuple(fact for member in self.members for fact in member.facts)

    @classmethod
    def _own(cls) -> dict[str, tuple[type[Method], str]]:
        """What each parameter is called here -> whose it is, and its name there."""
        own = [(kind, name) for kind in cls.kinds for name in kind.declared()]
        times = Counter(name for _, name in own)
        return {f"{kind.name}.{name}" if times[name] > 1 else name: (kind, name) for kind, name in own}

    @classmethod
    def declared(cls) -> Mapping[str, Parameter]:
        return {here: kind.declared()[name] for here, (kind, name) in cls._own().items()}

    def parameters(self) -> dict[str, Any]:
        values = {type(member): member.parameters() for member in self.members}
        return {here: values[kind][name] for here, (kind, name) in self._own().items()}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        # A name that is unique may be given in full too.
        names = cls._own() | {f"{kind.name}.{name}": (kind, name) for kind, name in cls._own().values()}
        unknown = sorted(set(parameters) - set(names))
        if unknown:
            raise RequestError(f"{cls.name}: {not_there('parameter', unknown[0], cls.declared())}")
        own: dict[type[Method], dict[str, Any]] = {kind: {} for kind in cls.kinds}
        for given, value in parameters.items():
            kind, name = names[given]
            own[kind][name] = value
        return cls(tuple(kind.from_parameters(own[kind]) for kind in cls.kinds))

    @classmethod
    def known_for(cls, model_names: Iterable[str]) -> dict[str, Any]:
        names = list(model_names)
        known = {kind: kind.known_for(names) for kind in cls.kinds}
        return {here: known[kind][name] for here, (kind, name) in cls._own().items() if name in known[kind]}

    def check_layers(self, n_layers: int) -> None:
        for member in self.members:
            member.check_layers(n_layers)

    def check_model(self, decoder: Decoder) -> None:
        for member in self.members:
            member.check_model(decoder)

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        return sum(member.row_bytes(decoder, prompt_tokens) for member in self.members)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> RowState[Any]:
        raise NotImplementedError("the methods of a stack have states of their own")


@functools.cache
def stack_of(kinds: tuple[type[Method], ...]) -> type[Stack]:
    """The class of stacks of these methods, in this order.

    Raises
    ------
    RequestError
        If two are of a kind.
    """
    name = JOIN.join(kind.name for kind in kinds)
    twice = [kind.name for kind, times in Counter(kinds).items() if times > 1]
    if twice:
        raise RequestError(f"{name} has {twice[0]} twice; a stack has at most one of a kind")
    made: type[Stack] = dataclasses.make_dataclass(
        "Stack", [], bases=(Stack,), frozen=True, namespace={"kinds": kinds, "__module__": __name__}
    )
    made.name = name
    return made


def get_method(name: str) -> type[Method]:
    """The class of the method called ``name``, or of the stack of methods called ``a+b``.

    Raises
    ------
    RequestError
        If there is none.
    """
    kinds = tuple(map(registered, name.split(JOIN)))
    return kinds[0] if len(kinds) == 1 else stack_of(kinds)


def listed_methods(text: str) -> list[str]:
    """The names in ``A,B+C,...``, or for :data:`ALL` those of all methods.

    Raises
    ------
    RequestError
        If there is no such method.
    """
    if text == ALL:
        return method_names()
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        get_method(name)
    return names
