"""When steps are captured and replayed, and what is left behind where one cannot be; CUDA's part is played."""

import contextlib
import weakref
from types import SimpleNamespace

import pytest
import torch

from kvtune.captioning import graphs as graphs_module
from kvtune.captioning.graphs import StepGraphs

DEVICE = torch.device("cuda", 1)


class Played:
    """As much of :mod:`torch.cuda` as a capture takes."""

    def __init__(self, fails=False):
        self.fails, self.now, self.captures, self.replays = fails, "default", [], 0
        self.pools, self.allocating, self.released = iter(range(9)), [], []

    def patch(self, monkeypatch):
        for name, value in {
            "graph_pool_handle": lambda: next(self.pools),
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "current_stream": lambda device: self.now,
            "synchronize": lambda device: None,
            "stream": self.stream,
            "graph": self.graph,
            "current_device": lambda: 1,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocating)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: self.released.append(pool))
        monkeypatch.setattr(graphs_module, "capture_stream", lambda device: ("side", device))

    def replay(self):
        self.replays += 1

    def end_allocating(self, *pool):
        if pool not in self.allocating:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.allocating.remove(pool)

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    @contextlib.contextmanager
    def graph(self, graph, pool, stream=("side", None), capture_error_mode="global"):
        before, self.now = self.now, stream
        self.allocating.append((1, pool))
        try:
            yield
        finally:
            if self.fails:  # where a capture cannot be ended, torch stays on its stream, and its allocator at its pool
                raise RuntimeError("operation failed due to a previous error during capture")
            self.end_allocating(1, pool)
            self.now = before
        self.captures.append((pool, stream, capture_error_mode))


def test_a_shape_is_run_then_captured_then_replayed(monkeypatch):
    played, steps = Played(), []
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)
    for _ in range(4):
        graphs.run("shape", lambda: steps.append(played.now))
    assert steps == ["default", ("side", DEVICE)]  # the second is the capture
    assert played.replays == 3
    # On a stream of the device itself, and whatever other threads do meanwhile.
    assert played.captures == [(0, ("side", DEVICE), "thread_local")]


def test_a_step_that_cannot_be_captured_leaves_the_stream_as_it_was(monkeypatch, caplog):
    played, steps = Played(fails=True), []
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)

    def step():
        steps.append(played.now)
        if played.now != "default":
            raise RuntimeError("not permitted when stream is capturing")

    for _ in range(3):
        graphs.run("shape", step)
        assert played.now == "default"
    assert steps == ["default", ("side", DEVICE), "default", "default"]
    (said,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("decoding without CUDA graphs")
    assert "not permitted when stream is capturing (test_graphs.py:" in said
    # The allocator knows that the capture is over, else it would never give memory back.
    assert not played.allocating
    assert played.released == [(1, 0)]


def test_a_capture_that_fails_and_ends_leaves_its_pool_to_its_graph(monkeypatch):
    played = Played()
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)

    def step():
        if played.now != "default":
            raise RuntimeError("no such kernel")

    for _ in range(2):
        graphs.run("shape", step)
    assert not played.allocating and not played.released


def test_graphs_that_are_too_many_are_dropped_with_their_pool(monkeypatch):
    played = Played()
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)
    for shape in range(33):
        for _ in range(2):
            graphs.run(shape, lambda: None)
    assert [pool for pool, *_ in played.captures] == [0] * 32 + [1]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), RuntimeError("CUDA error: out of memory\nCompile with")]
)
def test_a_capture_without_memory_is_no_reason_to_give_graphs_up(monkeypatch, error, ends):
    played = Played()
    played.patch(monkeypatch)

    @contextlib.contextmanager
    def graph(*given, **named):
        try:
            yield
        finally:
            if not ends:
                raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    graphs = StepGraphs(DEVICE)
    graphs.run("shape", lambda: None)

    def step():
        raise error

    with pytest.raises(type(error), match="memory"):
        graphs.run("shape", step)
    assert not graphs._off


def test_no_graph_that_may_still_run_is_dropped(monkeypatch):
    """A graph is gone with the last that holds it."""
    played, kept = Played(), []
    played.patch(monkeypatch)
    there = weakref.WeakSet()

    class Graph:
        def __init__(self):
            there.add(self)

        def replay(self):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: kept.append(len(there)))
    graphs = StepGraphs(DEVICE)
    for shape in range(33):
        for _ in range(2):
            graphs.run(shape, lambda: None)
    assert kept == list(range(33))
