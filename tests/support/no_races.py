"""A mode in which nothing may be written twice with different numbers: on a GPU nobody says which of them stays."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WRITES = {"index_put_", "index_put", "scatter_", "scatter", "index_copy_", "index_copy"}


class NoRaces(TorchDispatchMode):
    """Looks at the destinations of every indexed write.

    ``nobody`` says of a place, and the length of the axis that it is on, whether nobody reads what is there.
    """

    def __init__(self, nobody=lambda place, size: False):
        super().__init__()
        self.nobody, self.writes = nobody, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WRITES:
            self.writes += 1
            self.check(func, name, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def check(self, func, name, args, kwargs):
        tensor = args[0]
        if name.startswith("index_put"):
            if kwargs.get("accumulate") or (len(args) > 3 and args[3]):
                return
            index = tuple(slice(None) if one is None else one for one in args[1])
            places = torch.arange(tensor.numel()).view(tensor.shape)[index]
            values = args[2]
        elif name.startswith("scatter"):
            if "reduce" in str(func) or not isinstance(args[3], torch.Tensor):
                return
            places = torch.arange(tensor.numel()).view(tensor.shape)
            places = places[
                tuple(slice(None) if axis == args[1] else slice(size) for axis, size in enumerate(args[2].shape))
            ]
            places = places.gather(args[1], args[2])
            values = args[3][tuple(map(slice, places.shape))]
        else:
            places = torch.arange(tensor.numel()).view(tensor.shape).index_select(args[1], args[2])
            values = args[3]
        places, values = places.reshape(-1), values.expand(places.shape).reshape(-1)
        order = places.argsort(stable=True)
        places, values = places[order], values[order]
        twice = places[1:] == places[:-1]
        other = (values[1:] != values[:-1]) & ~((values[1:] != values[1:]) & (values[:-1] != values[:-1]))
        for place in places[1:][twice & other].tolist():
            where = torch.unravel_index(torch.tensor(place), tensor.shape)
            read = not any(self.nobody(int(at), size) for size, at in zip(tensor.shape, where, strict=True))
            assert not read, f"{func} writes {[int(at) for at in where]} of {list(tensor.shape)} twice"
