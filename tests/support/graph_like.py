"""A stand-in for CUDA graphs that runs anywhere: what a step did is recorded, and replayed on the same memory.

As with a CUDA graph, Python takes no part in a replay: shapes, branches and numbers are those of the recorded step, and
only tensors' contents differ. Asking a tensor for a number while recording fails, as it fails a capture.
"""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "allclose", "masked_select", "unique_dim"}
"""Operations whose result the host needs to go on."""

READS_IN_PYTHON = {
    "tolist",
    "numpy",
    "item",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__array__",
    "__contains__",
}
"""Methods of a tensor that read its memory without an operation, or before one in inference mode."""


def is_view(func, given, results):
    """Whether what an operation gave is another look at memory that it was given, and nothing was written."""
    there = {tensor.untyped_storage().data_ptr() for tensor in given}
    return not func._schema.is_mutable and all(tensor.untyped_storage().data_ptr() in there for tensor in results)


def tensors(result):
    """The tensors that an operation gave."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


class NoReads(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        assert name not in READS_IN_PYTHON, f"{name} waits for the device in the middle of a step"
        return function(*args, **(kwargs or {}))


class RecordedStep(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []
        self._no_reads = NoReads()

    def __enter__(self):
        self._asked = torch.cuda.is_current_stream_capturing
        torch.cuda.is_current_stream_capturing = lambda: True  # transformers makes masks in another way then
        self._no_reads.__enter__()
        return super().__enter__()

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self._no_reads.__exit__(*arguments)
        torch.cuda.is_current_stream_capturing = self._asked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1])
        )
        assert name not in READS and not masks, f"{func} waits for the device in the middle of a step"
        result = func(*args, **(kwargs or {}))
        places = tensors(result)
        if not is_view(func, tensors((args, kwargs)), places):  # which shows whatever is there
            self.calls.append((func, args, kwargs or {}, places))
        return result

    def replay(self):
        for func, args, kwargs, places in self.calls:
            for place, new in zip(places, tensors(func(*args, **kwargs)), strict=True):
                if place.data_ptr() != new.data_ptr():
                    place.copy_(new)


class RecordedSteps:
    """In place of :class:`kvtune.captioning.graphs.StepGraphs`."""

    def __init__(self):
        self.seen, self.recorded, self.replays = set(), {}, 0

    def run(self, shape, step):
        if shape in self.recorded:
            self.recorded[shape].replay()
            self.replays += 1
        elif shape in self.seen:
            self.recorded[shape] = RecordedStep()
            with self.recorded[shape]:
                step()
        else:
            self.seen.add(shape)
            step()


def like_a_gpu(monkeypatch):
    """Let captioners on the CPU work as they do on a GPU: pages, replayed steps, tokens looked at a step late.

    Returns the recorders of the grids that were made.
    """
    from kvtune.captioning import paged_grid, planning

    made = []

    def recorder(*_):
        made.append(RecordedSteps())
        return made[-1]

    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    monkeypatch.setattr(paged_grid, "step_graphs", recorder)
    return made


class NoWaits(TorchFunctionMode):
    """Refuses what makes a host wait for a GPU, of which tensors on meta are a stand-in: reads, and copies to it from
    memory that is not pinned, in whatever disguise."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        first = args[0] if args else None
        there = isinstance(first, torch.Tensor) and first.is_meta
        refused = there and name in READS_IN_PYTHON
        if name in {"tensor", "as_tensor"}:
            refused = str(kwargs.get("device")) == "meta" and first != []  # of nothing, nothing is copied
        elif name in {"to", "copy_"}:
            source = args[1] if name == "copy_" else first
            leaves = there if name == "copy_" else "meta" in map(str, [*args[1:], *kwargs.values()])
            refused = leaves and not source.is_meta and not kwargs.get("non_blocking")
        elif name in {"__getitem__", "__setitem__"} and there:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            refused = any(map(here, index))
            one = len(index) == first.ndim and all(isinstance(i, int) for i in index)
            refused |= name == "__setitem__" and one and not isinstance(args[2], torch.Tensor)
        assert not refused, f"{name} waits for the device"
        return function(*args, **kwargs)


def here(index):
    """Whether an index lies in the host's memory and would be copied to the device."""
    return isinstance(index, list | range | np.ndarray) or (isinstance(index, torch.Tensor) and not index.is_meta)
