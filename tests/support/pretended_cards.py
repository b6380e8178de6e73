"""A stand-in for several cards that runs anywhere: real tensors, each of which says that it is on a card.

Cards are ``cpu:0``, ``cpu:1``, ...; a tensor on none of them is the host's. As on a real machine, an operation takes
tensors of one card, and beside them of the host only numbers and indices; only a copy goes from one to another, and
what is on a card must be copied before the host reads it as an array.
"""

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOST = torch.device("cpu")

MOVES = ("_to_copy", "copy_")
TAKES_INDICES = ("index", "index_put_", "index_put", "_index_put_impl_")
WANT_HOST = ("numpy", "__array__", "pin_memory")


class ApartError(RuntimeError):
    """Tensors of different cards in one operation."""


class PretendedCards:
    """Within the block, tensors have cards.

    Attributes
    ----------
    copies
        From which device to which, of every copy between two.
    """

    def __init__(self):
        self._card_of = {}
        self.copies = []
        self._modes = [_Names(self), _Checks(self)]

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *raised):
        for mode in reversed(self._modes):
            mode.__exit__(*raised)

    def card_of(self, tensor):
        """The device that a tensor is said to be on."""
        found = self._card_of.get(storage_of(tensor)._cdata)
        return HOST if found is None or found[0].expired() else found[1]

    def put(self, tensor, device):
        """Say that a tensor is on a device."""
        storage = storage_of(tensor)
        self._card_of[storage._cdata] = StorageWeakRef(storage), device


def tensors_in(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def storage_of(tensor):
    """Where a tensor's numbers are; of one that ``vmap`` goes over, those of all."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


class _Names(TorchFunctionMode):
    """What Python asks a tensor about its device, and moving it there."""

    def __init__(self, cards):
        super().__init__()
        self.cards = cards

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if function == torch.Tensor.device.__get__:
            return self.cards.card_of(args[0])
        if name in ("to", "cpu"):
            asked = [HOST] if name == "cpu" else [*args[1:], *kwargs.values()]
            device = next((one for one in map(self._device, asked) if one is not None), None)
            dtype = next((one for one in asked if isinstance(one, torch.dtype)), args[0].dtype)
            if device is not None:
                return self._moved(args[0], device, dtype, bool(kwargs.get("copy")))
        if name in ("tensor", "as_tensor"):  # which make a tensor without an operation
            result = function(*args, **kwargs | {"device": HOST})
            self.cards.put(result, self._device(kwargs.get("device")) or HOST)
            return result
        if name in WANT_HOST and self.cards.card_of(args[0]) != HOST:
            raise ApartError(f"{name} of a tensor on {self.cards.card_of(args[0])}")
        return function(*args, **kwargs)

    def _moved(self, tensor, device, dtype, copy):
        before = self.cards.card_of(tensor)
        result = tensor.clone() if copy or before != device else tensor
        if result.dtype != dtype:
            result = result.to(dtype)
        if result is not tensor:
            self.cards.put(result, device)
        if before != device:
            self.cards.copies.append((before, device))
        return result

    def _device(self, given):
        """The device that an argument of ``to`` names; None if it names none."""
        if isinstance(given, torch.Tensor):
            return self.cards.card_of(given)
        if isinstance(given, str):
            return torch.device(given)
        return given if isinstance(given, torch.device) else None


class _Checks(TorchDispatchMode):
    """Every operation, whoever asks for it."""

    def __init__(self, cards):
        super().__init__()
        self.cards = cards

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        given = [*tensors_in(args), *tensors_in(kwargs.values())]
        if name in TAKES_INDICES:
            indices = {id(one) for one in tensors_in(args[1])}
            checked = [one for one in given if id(one) not in indices or self.cards.card_of(one) != HOST]
        else:
            checked = given
        there = {self.cards.card_of(one) for one in checked if one.ndim or self.cards.card_of(one) != HOST}
        if name not in MOVES and len(there) > 1:
            raise ApartError(f"{func} takes tensors on {', '.join(sorted(map(str, there)))}")
        device = kwargs.get("device")
        if device is not None:
            kwargs["device"] = HOST
        result = func(*args, **kwargs)
        known = {storage_of(one)._cdata for one in given}
        if name == "copy_":
            if (ways := (self.cards.card_of(args[1]), self.cards.card_of(args[0])))[0] != ways[1]:
                self.cards.copies.append(ways)
            return result
        target = device if device is not None else next(iter(there), HOST)
        for one in tensors_in([result]):
            if storage_of(one)._cdata not in known:
                self.cards.put(one, target)
        return result
