"""Alternatives in one search space: methods of which every setting has one, and what their parameters are called."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kvtune.errors import RequestError
from kvtune.methods.method import Method
from kvtune.methods.stack import get_method
from kvtune.text import quoted

OR = ","
"""Between the names of alternatives in one word."""

CHOICE = "method"
"""The parameter that says which of the alternatives a setting has."""


@dataclasses.dataclass(frozen=True)
class Alternatives:
    """The methods that a search chooses among, stacks too; a single one where there is nothing to choose.

    A setting of several has the parameters of one of them, and that one's name as :data:`CHOICE`. A parameter whose
    name is not unique among all of them, those of a stack's members included, is ``METHOD.NAME``. A setting of a single
    method is that method's parameters as they are.

    Raises
    ------
    RequestError
        If there is no such method, or one is there twice.
    """

    names: tuple[str, ...]

    @staticmethod
    def of(text: str) -> Alternatives:
        """Those that ``pai,clvs`` names."""
        return Alternatives(tuple(name.strip() for name in text.split(OR)))

    def __post_init__(self) -> None:
        for name in self.names:
            get_method(name)
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise RequestError(f"{self} has {twice[0]} twice; name each alternative once")

    def __str__(self) -> str:
        return OR.join(self.names)

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one."""
        return len(self.names) > 1

    @cached_property
    def parameters(self) -> dict[str, dict[str, str]]:
        """By alternative, what each of its parameters is called here."""
        declared = {name: list(get_method(name).declared()) for name in self.names}
        if not self.is_choice:
            return {name: {own: own for own in owns} for name, owns in declared.items()}
        times = Counter(_last(own) for owns in declared.values() for own in owns)
        return {
            name: {own: f"{name}.{own}" if times[_last(own)] > 1 else own for own in owns}
            for name, owns in declared.items()
        }

    def chosen(self, setting: Mapping[str, Any]) -> str:
        """The alternative that a setting has.

        Raises
        ------
        RequestError
            If it names none of them.
        """
        if not self.is_choice:
            return self.names[0]
        name = setting.get(CHOICE)
        if name not in self.names:
            raise RequestError(f"{CHOICE} must be one of {', '.join(self.names)}, not {quoted(name)}")
        return str(name)

    def own(self, name: str, setting: Mapping[str, Any]) -> dict[str, Any]:
        """What a setting, or ranges or the like, has for one alternative, by the method's own names."""
        if not self.is_choice:
            return dict(setting)
        return {own: setting[here] for own, here in self.parameters[name].items() if here in setting}

    def here(self, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """The other way: an alternative's own parameters as a setting."""
        if not self.is_choice:
            return dict(own)
        return {CHOICE: name} | {self.parameters[name][one]: value for one, value in own.items()}

    def method(self, setting: Mapping[str, Any]) -> Method:
        """The method of a setting.

        Raises
        ------
        RequestError
            If a parameter is unknown or missing, or its value is out of range.
        """
        name = self.chosen(setting)
        unknown = sorted(set(setting) - {CHOICE, *self.parameters[name].values()})
        if unknown and self.is_choice:
            there = ", ".join(self.parameters[name].values())
            raise RequestError(f"{name} has no parameter {quoted(unknown[0])}; it has {there}")
        return get_method(name).from_parameters(self.own(name, setting))


def _last(name: str) -> str:
    """A parameter's name without that of the stack's member that it is of."""
    return name.rpartition(".")[2]
