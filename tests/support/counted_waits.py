"""Counts what makes a host wait for a GPU, on a pretended card, whose tensors have numbers and suit any model."""

import traceback
from collections import Counter

import torch
from graph_like import READS, READS_IN_PYTHON, here
from pretended_cards import HOST, TAKES_INDICES
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("maia", 0)
"""No such backend is built: code for it takes the ways for any GPU, and none of its own."""


class CountedWaits:
    """Within the block, waits are counted; to be entered within :class:`pretended_cards.PretendedCards`.

    Attributes
    ----------
    found
        How often what waited, and for whom: (operation, file outside of torch, its line).
    """

    def __init__(self, cards):
        self.cards, self.found, self.noting = cards, Counter(), False
        self._modes = [_InPython(self), _Operations(self)]

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised):
        for mode in reversed(self._modes):
            mode.__exit__(*raised)

    def there(self, tensor):
        return isinstance(tensor, torch.Tensor) and self.cards.card_of(tensor) != HOST

    def note(self, name):
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and "/support/" not in f.filename]
        self.found[name, frames[-1].filename, frames[-1].lineno] += 1


class _InPython(TorchFunctionMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        waits, kwargs, name = self.waits, kwargs or {}, getattr(function, "__name__", "")
        first = args[0] if args else None
        there = waits.there(first)
        counted = there and name in READS_IN_PYTHON
        if name in {"to", "cpu"}:
            asked = [HOST] if name == "cpu" else [*args[1:], kwargs.get("device")]
            devices = [torch.device(one) for one in asked if isinstance(one, str | torch.device)]
            devices += [waits.cards.card_of(one) for one in asked if isinstance(one, torch.Tensor)]
            counted = bool(devices) and devices[0] != waits.cards.card_of(first) and not kwargs.get("non_blocking")
        elif name in {"tensor", "as_tensor"}:
            counted = (
                torch.device(kwargs.get("device") or HOST) != HOST and first != []
            )  # of nothing, nothing is copied
        elif name == "copy_":
            counted = there != waits.there(args[1]) and not kwargs.get("non_blocking")
        elif name in {"__getitem__", "__setitem__"} and there:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            counted = any(here(one) and not waits.there(one) for one in index)
        if counted and not waits.noting:
            waits.note(name)
        outer, waits.noting = waits.noting, waits.noting or counted
        try:
            return function(*args, **kwargs)
        finally:
            waits.noting = outer


class _Operations(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits, name = self.waits, func.overloadpacket.__name__
        if not waits.noting and any(map(waits.there, args)):
            masks = name in TAKES_INDICES and any(
                isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1]
            )
            repeats = (
                name == "repeat_interleave" and "Tensor" in func._overloadname and not (kwargs or {}).get("output_size")
            )
            if name in READS or masks or repeats:
                waits.note(name)
        return func(*args, **(kwargs or {}))
