"""A device of little memory, played on the CPU: live tensors are counted, and too many are refused."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LimitedMemory(TorchDispatchMode):
    """While it is entered, results of operations count from when they are made until they are gone.

    An operation whose results do not fit under ``limit`` bytes with what is alive raises ``torch.OutOfMemoryError``,
    as the CUDA allocator does. ``peak`` is the most that was alive. What an operation takes and frees within itself is
    not seen.
    """

    def __init__(self, limit=float("inf")):
        super().__init__()
        self.limit, self.live, self.peak, self.refusals = limit, 0, 0, 0
        self._storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        for tensor in tree_leaves(results):
            if torch.is_tensor(tensor):
                self._count(tensor.untyped_storage(), known)
        if self.live > self.limit:
            self.refusals += 1
            raise torch.OutOfMemoryError(f"{self.live} bytes are alive, and {self.limit} are allowed")
        return results

    def _count(self, storage, known):
        place, size = storage.data_ptr(), storage.nbytes()
        if size == 0 or place in known or place in self._storages:
            return
        self._storages[place] = weakref.finalize(storage, self._gone, place, size)
        self._storages[place].atexit = False
        self.live += size
        self.peak = max(self.peak, self.live)

    def _gone(self, place, size):
        del self._storages[place]
        self.live -= size
