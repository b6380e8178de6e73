"""A GPU that is pretended, and works behind the host.

A copy to the host is there only when an event that was recorded after it has been waited for; until then the memory
holds nonsense. A copy from the host that nobody waits for leaves pinned memory, which nobody may write meanwhile. And
what one stream has written or read another touches only after it has waited for that.
"""

from collections import defaultdict
from contextlib import contextmanager

import pytest
import torch
from pretended_cards import HOST, PretendedCards, storage_of, tensors_in
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kvtune.captioning.side_stream import side_stream

GPU = torch.device("cuda", 0)


class Stream:
    """A stream of the GPU.

    Attributes
    ----------
    after
        Of each stream, how many of its operations come before whatever is launched in this one.
    """

    def __init__(self, device=None, priority=0):
        assert device is not None, "a stream of whichever GPU is the current one"
        self.after = defaultdict(int)

    def wait_stream(self, other):
        for stream, number in other.after.items():
            self.after[stream] = max(self.after[stream], number)


class LateGpu(PretendedCards):
    """Within the block it is there, named ``cuda:0``."""

    def __init__(self):
        super().__init__()
        self.current = [Stream(GPU)]
        self.pinned, self.touched = {}, {}
        self.coming, self.going = [], []
        self._modes += [_Order(self), _Copies(self)]
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        gpu = self

        class Event:
            def record(self, stream):
                self.copies, self.looks = [copy for copy in gpu.coming if copy[0] is stream], 0

            def query(self):
                self.looks += 1
                if self.looks > 1:
                    self.synchronize()
                return self.looks > 1

            def synchronize(self):
                for _, host, numbers in self.copies:
                    host.copy_(numbers)
                there = {id(copy) for copy in self.copies}
                gpu.coming = [copy for copy in gpu.coming if id(copy) not in there]

        @contextmanager
        def stream(one):
            gpu.current.append(one)
            yield
            gpu.current.pop()

        @contextmanager
        def device(one):
            yield

        def current_stream(device):
            return gpu.current[-1]

        parts = {"Event": Event, "Stream": Stream, "stream": stream, "device": device, "current_stream": current_stream}
        memory = {"mem_get_info": lambda device: (2**34, 2**36), "memory_reserved": lambda device: 0}
        for name, part in {**parts, **memory, "memory_allocated": memory["memory_reserved"]}.items():
            self._patch.setattr(torch.cuda, name, part)
        self._patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        self._patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self._patch.undo()
        side_stream.cache_clear()

    def pin(self, tensor):
        self.pinned[storage_of(tensor)._cdata] = StorageWeakRef(storage_of(tensor))
        return tensor

    def is_pinned(self, tensor):
        found = self.pinned.get(storage_of(tensor)._cdata)
        return found is not None and not found.expired()

    def goes(self, source):
        """A copy from the host begins that nobody waits for; those before it end."""
        assert self.is_pinned(source), "a copy that nobody waits for, from memory that is not pinned"
        for one, before in self.going:
            assert torch.equal(one, before), "memory was written while it was copied"
        self.going = [(source, source.clone())]

    def comes(self, host, numbers):
        """A copy to the host begins."""
        assert self.is_pinned(host), "a copy to memory that is not pinned"
        assert all(other is not host for _, other, _ in self.coming), "another copy is on its way to this memory"
        self.coming.append((self.current[-1], host, numbers.clone()))
        host.fill_(-12345 if host.dtype not in (torch.bool, torch.uint8) else 1)

    def touch(self, read, written):
        """An operation on memory of the GPU is launched in the current stream."""
        now = self.current[-1]
        now.after[now] += 1
        for tensors, writes in ((read, False), (written, True)):
            for tensor in tensors:
                storage = storage_of(tensor)
                found = self.touched.get(storage._cdata)
                if found is None or found[0].expired():
                    found = self.touched[storage._cdata] = StorageWeakRef(storage), {}, {}
                _, writers, readers = found
                for stream, number in [*writers.items(), *(readers.items() if writes else ())]:
                    assert stream is now or now.after[stream] >= number, "a stream that has not been waited for"
                (writers if writes else readers)[now] = now.after[now]


class _Order(TorchDispatchMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu = self.gpu
        given = [*tensors_in(args), *tensors_in((kwargs or {}).values())]
        before = [one for one in given if gpu.card_of(one) != HOST]
        mutated = [
            one
            for argument, one in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
            for one in tensors_in([one])
        ]
        result = func(*args, **(kwargs or {}))
        known = {storage_of(one)._cdata for one in given}
        made = [one for one in tensors_in([result]) if storage_of(one)._cdata not in known]
        gpu.touch(before, [one for one in [*mutated, *made] if gpu.card_of(one) != HOST])
        return result


class _Copies(TorchFunctionMode):
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function, types, args=(), kwargs=None):
        gpu, kwargs, name = self.gpu, dict(kwargs or {}), getattr(function, "__name__", "")
        if name == "pin_memory":
            return args[0] if gpu.is_pinned(args[0]) else gpu.pin(args[0].clone())
        if name == "is_pinned":
            return gpu.is_pinned(args[0])
        if name == "empty" and kwargs.pop("pin_memory", False):
            return gpu.pin(function(*args, **kwargs))
        unwaited = bool(kwargs.get("non_blocking"))
        if name == "copy_":
            to, source = args[:2]
            if unwaited and gpu.card_of(to) != HOST and gpu.card_of(source) == HOST:
                gpu.goes(source)
            elif unwaited and gpu.card_of(to) == HOST and gpu.card_of(source) != HOST:
                gpu.comes(to, source)
                return to
        elif name == "to" and unwaited:
            result = function(*args, **kwargs)
            ways = gpu.card_of(args[0]) != HOST, gpu.card_of(result) != HOST
            if ways == (False, True):
                gpu.goes(args[0])
            elif ways == (True, False):
                gpu.comes(gpu.pin(result), result)
            return result
        return function(*args, **kwargs)
