"""When steps are captured and replayed, and what is left behind where one cannot be; CUDA's part is played."""

import contextlib
import gc
import inspect
import weakref

import pytest
import torch
from failing_device import cuda_error

from kvtune.captioning import graphs as graphs_module
from kvtune.captioning.graphs import StepGraphs, capture_stream, step_graphs
from kvtune.errors import LostDeviceError

DEVICE = torch.device("cuda", 1)
CAPTURE_BEGIN = inspect.signature(torch.cuda.CUDAGraph.capture_begin)


class Played:
    """As much of :mod:`torch.cuda` as a capture takes."""

    def __init__(self, fails=False, free=2**34):
        self.fails, self.free, self.now, self.captures, self.replays = fails, free, "default", [], 0
        self.pools, self.allocating, self.released, self.asked = iter(range(9)), [], [], []
        self.there = weakref.WeakSet()

    def patch(self, monkeypatch):
        for name, value in {
            "graph_pool_handle": lambda: next(self.pools),
            "CUDAGraph": lambda: PlayedGraph(self),
            "current_stream": lambda device: self.now,
            "synchronize": lambda device: self.asked.append("wait"),
            "empty_cache": lambda: self.asked.append("empty cache"),
            "mem_get_info": lambda device: (self.free, 2**36),
            "stream": self.stream,
            "current_device": lambda: 1,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_allocating)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *pool: self.released.append(pool))
        monkeypatch.setattr(graphs_module, "capture_stream", lambda device: ("side", device))

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


class PlayedGraph:
    def __init__(self, played):
        self.played = played
        played.there.add(self)

    def capture_begin(self, *given, **named):
        CAPTURE_BEGIN.bind(self, *given, **named)
        (self.pool,), self.mode = given, named["capture_error_mode"]
        self.played.allocating.append((1, self.pool))

    def capture_end(self):
        if self.played.fails:  # where a capture cannot be ended, torch's allocator stays at its pool
            raise RuntimeError("operation failed due to a previous error during capture")
        self.played.end_allocating(1, self.pool)
        self.played.captures.append((self.pool, self.played.now, self.mode))

    def replay(self):
        self.played.replays += 1


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
    # And it goes on asking the graph, which must be there.
    del graphs
    gc.collect()
    assert len(played.there) == 1


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


@pytest.mark.parametrize(
    ("free", "takes", "asked"), [(2**34, 0, []), (2**28, 0, ["empty cache"]), (2**31, 2**31, ["empty cache"])]
)
def test_a_capture_waits_for_nothing_and_takes_cached_memory_back_only_where_it_is_short(
    monkeypatch, free, takes, asked
):
    """What is cached is wanted again by the next prompts, and the device has a step to do meanwhile.

    Nothing is given back once a capture is under way, and what a step took before is not for its graph.
    """
    played = Played(free=free)
    played.patch(monkeypatch)
    graphs = step_graphs(DEVICE, takes)
    for _ in range(3):
        graphs.run("shape", lambda: None)
    assert len(played.captures) == 1 and played.asked == asked


def test_what_graphs_have_already_need_not_be_free(monkeypatch):
    """All of a grid share one pool, until a new one is begun."""
    played = Played(free=2**31 + 2**30)
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE, 2**31)

    def step():
        if played.now != "default" and not played.captures:
            played.free -= 2**31

    for shape in range(32):
        for _ in range(2):
            graphs.run(shape, step)
    assert not played.asked
    for _ in range(2):
        graphs.run(32, step)
    assert played.asked == ["wait", "empty cache"]


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
    played = Played(fails=not ends)
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)
    graphs.run("shape", lambda: None)

    def step():
        raise error

    with pytest.raises(type(error), match="memory"):
        graphs.run("shape", step)
    assert not graphs._off


@pytest.mark.parametrize("ends", [True, False])
def test_a_capture_without_memory_holds_nothing_of_the_step(monkeypatch, ends):
    """A grid that failed must be gone before a smaller one is made."""
    Played(fails=not ends).patch(monkeypatch)
    graphs = StepGraphs(DEVICE)
    graphs.run("shape", lambda: None)

    class Cache:
        pass

    def fail():
        cache = Cache()
        there = weakref.ref(cache)

        def step():
            raise torch.OutOfMemoryError(f"no memory beside {cache}")

        with contextlib.suppress(torch.OutOfMemoryError):
            graphs.run("shape", step)
        return there

    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(
    "error",
    [cuda_error("an illegal memory access was encountered"), LostDeviceError("the GPU hangs"), KeyboardInterrupt()],
)
def test_a_lost_device_and_an_interruption_go_through_whatever_is_said_at_the_end_of_the_capture(
    monkeypatch, caplog, error, ends
):
    played = Played(fails=not ends)
    played.patch(monkeypatch)
    graphs = StepGraphs(DEVICE)
    graphs.run("shape", lambda: None)

    def step():
        raise error

    with pytest.raises(type(error)) as raised:
        graphs.run("shape", step)
    assert raised.value is error and not caplog.records  # which would say that there are no graphs any more


def test_no_graph_that_may_still_run_is_dropped(monkeypatch):
    """A graph is gone with the last that holds it."""
    played, at_waits = Played(), []
    played.patch(monkeypatch)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: at_waits.append(len(played.there)))
    graphs = StepGraphs(DEVICE)
    for shape in range(33):
        for _ in range(2):
            graphs.run(shape, lambda: None)
    assert at_waits == [32] and len(played.there) == 1


def test_graphs_are_of_a_gpu_and_captured_on_a_stream_of_that(monkeypatch):
    """Torch's own stream for captures is of the GPU on which the process captured first."""
    assert step_graphs(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: [device])
    capture_stream.cache_clear()
    streams = [capture_stream(torch.device("cuda", number)) for number in (0, 1, 1)]
    capture_stream.cache_clear()
    assert streams == [[torch.device("cuda", 0)], [DEVICE], [DEVICE]] and streams[1] is streams[2]
