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
        self.pools = iter(range(9))

    def patch(self, monkeypatch):
        for name, value in {
            "graph_pool_handle": lambda: next(self.pools),
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "current_stream": lambda device: self.now,
            "synchronize": lambda device: None,
            "stream": self.stream,
            "graph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphs_module, "capture_stream", lambda device: ("side", device))

    def replay(self):
        self.replays += 1

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
        with contextlib.suppress(RuntimeError):
            yield
        if self.fails:  # where a capture cannot be ended, torch stays on the stream of the capture
            raise RuntimeError("operation failed due to a previous error during capture")
        self.captures.append((pool, stream, capture_error_mode))
        self.now = before


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
    assert "without CUDA graphs" in caplog.text


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
