"""A stand-in for CUDA graphs that runs anywhere: what a step did is recorded, and replayed on the same memory.

As with a CUDA graph, Python takes no part in a replay: shapes, branches and numbers are those of the recorded step, and
only tensors' contents differ. Asking a tensor for a number while recording fails, as it fails a capture.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvtune.captioning.grid import Grid

READS_A_NUMBER = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


class RecordedStep(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in READS_A_NUMBER, f"{func} waits for the device in the middle of a step"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self):
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for place, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != new.data_ptr():
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
    """Let grids on the CPU work as they do on a GPU: fixed shapes, replayed steps, tokens looked at a step late.

    Returns the recorders of the grids that were made.
    """
    from kvtune.captioning import captioner, grid

    made = []

    def recorder(device):
        made.append(RecordedSteps())
        return made[-1]

    original = Grid.__init__

    def init(self, *arguments):
        original(self, *arguments)
        self._fixed_shapes = True
        self._graphs = recorder(None)

    monkeypatch.setattr(Grid, "__init__", init)
    monkeypatch.setattr(grid, "StepGraphs", recorder)
    monkeypatch.setattr(captioner, "_LATE", {"cpu": 1})
    return made
