"""The parts of the bench that are modules to run: what they print is what a run of the engine was."""

import json
from importlib.metadata import version

import pytest
import torch
from graph_like import RecordedSteps
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.bench.engine import kernels, versions
from kvtune.bench.engine.long import long_among_short
from kvtune.bench.engine.profile import StepKernels, profile
from kvtune.bench.engine.projections import projections
from kvtune.bench.engine.spent import capture_seconds
from kvtune.bench.engine.subject import bench_method
from kvtune.bench.engine.workload import Workload
from kvtune.captioning.captioner import Captioner
from kvtune.captioning.graphs import StepGraphs
from kvtune.captioning.memory import plan_grid

METHOD = KVSmooth(0.5, 5, 0.3, 0, 3)


def small_work(lanes, max_new_tokens, images=2):
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    return Workload(Captioner(vlm, None, max_new_tokens, lanes), random_images(images))


def small_image(number):
    return random_images(1, seed=number)[0]


def test_kernels_are_timed_without_their_launches(monkeypatch):
    """Small ones take a GPU less time than the host takes to launch them."""
    graphs, launched = RecordedSteps(), []
    monkeypatch.setattr(kernels, "step_graphs", lambda device: graphs)
    numbers = torch.zeros(3)
    found = kernels.speed(lambda: launched.append(numbers.add_(1)), torch.device("cpu"), 8_000, repeats=5)
    assert len(launched) == 2 * 5 and graphs.replays == 3 and numbers.tolist() == [25.0] * 3
    assert found["gb_per_second"] == pytest.approx(8e-3 / found["ms"])


def test_long_captions_are_few_forced_and_begin_early(monkeypatch):
    """Six turns of 4 rows: 24 captions, of which one, among the first five, runs on to the limit of 32."""
    runs, original = [], Captioner.run

    def seen(self, requests):
        runs.append([])
        for caption in original(self, requests):
            runs[-1].append(caption)
            yield caption

    monkeypatch.setattr(Captioner, "run", seen)
    kept = []
    extra = long_among_short(small_work(4, 32), METHOD, 2, kept.append, small_image)
    warm, without, among = runs
    assert len(warm) == 8 and {len(caption.token_ids) for caption in warm} == {4}
    assert len(without) == len(among) == 24
    assert {caption.finish_reason for caption in without + among} == {"length"}
    short = {caption.tag: len(caption.token_ids) for caption in without}
    lengths = {caption.tag: len(caption.token_ids) for caption in among}
    assert set(short.values()) <= set(range(4, 11))
    changed = [number for number in short if lengths[number] != short[number]]
    assert len(changed) == 1 and changed[0] < 5 and lengths[changed[0]] == 32
    assert [line["what"] for line in kept] == ["without", "with", "extra"]
    assert kept[0]["tokens"] == sum(short.values()) and kept[1]["tokens"] == sum(lengths.values())
    rates = [line["tokens"] / line["seconds"] for line in kept[:2]]
    assert extra == kept[2]["percent"] == pytest.approx(100 * (rates[0] / rates[1] - 1))
    json.dumps(kept)


def test_a_run_without_given_lanes_has_six_turns_of_what_is_planned(monkeypatch):
    from kvtune.bench.engine import long
    from kvtune.captioning import captioner

    monkeypatch.setattr(long, "MOST_ROWS", 16)
    monkeypatch.setattr(captioner, "LOOK_AHEAD", 8)
    monkeypatch.setattr("kvtune.captioning.memory.MOST_ROWS", 8)
    kept = []
    long_among_short(small_work("auto", 8), METHOD, 2, kept.append, small_image)
    assert (kept[0]["rows"], kept[0]["captions"]) == (8, 48)


def test_a_profile_of_steps():
    work = small_work("auto", 40)
    plan = plan_grid(work.vlm, work.prompt_tokens, 40, 8, 2, 8)
    kept = []
    profile(work, METHOD, plan, kept.append)
    steps, kernels, prompts = kept
    assert (steps["what"], steps["rows"], steps["steps"], steps["pairs"]) == ("steps", 8, 12, 2)
    assert (kernels["what"], kernels["steps"], len(kernels["kernels"])) == ("kernels", 4, 15)
    spent = [kernel["ms"] for kernel in kernels["kernels"]]
    assert spent == sorted(spent, reverse=True) and spent[0] > 0
    assert 0 < sum(kernel["share"] for kernel in kernels["kernels"]) <= 1
    products = {kernel["name"]: kernel["calls"] for kernel in kernels["kernels"]}
    assert products["aten::mm"] >= 3 * 7  # a step has seven in each layer
    assert (prompts["what"], prompts["prompts"], prompts["tokens"]) == ("prompts", 5, 5 * work.prompt_tokens)
    assert 0 < prompts["host_ms"] <= prompts["ms"] and prompts["tflops"] > 0
    json.dumps(kept)


def test_captions_that_end_before_the_steps_are_looked_at_give_no_kernels():
    kernels = StepKernels(torch.device("cpu"), range(5, 9))
    with kernels:
        for _ in range(7):
            kernels.step(lambda: torch.zeros(1), 1)
        assert torch.autograd._profiler_enabled()
    assert not torch.autograd._profiler_enabled()  # or it would note every operation from now on
    assert kernels.dearest(15) == []


def test_captures_of_graphs_are_timed(monkeypatch):
    """With a stand-in for what captures, for there is no GPU."""
    asked = []
    monkeypatch.setattr(StepGraphs, "capture", lambda graphs, shape, step: not asked.append((shape, step)))
    graphs, original = object.__new__(StepGraphs), StepGraphs.capture
    with capture_seconds() as seconds:
        assert all(graphs.capture(shape, "step") for shape in range(2))
    assert len(seconds) == 2 and min(seconds) >= 0
    assert asked == [(0, "step"), (1, "step")]
    assert StepGraphs.capture is original


def test_the_method_of_a_small_model_fits_it():
    vlm = small_vlm()
    bench_method(vlm).check_layers(vlm.n_layers)


def test_versions_as_one_line_of_json(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["versions", "--device", "cpu"])
    versions.main()
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "CPU" and found["torch"] == version("torch") and found["driver"] is None
    assert min(found["matmul_flops"], found["copy_bytes_per_second"], found["free_bytes"]) > 0


def test_linear_layers_are_timed_one_by_one_and_as_one(monkeypatch):
    """Of the same weights and rows, so that both give the same numbers."""
    products, original = [], torch.nn.functional.linear

    def linear(hidden, weight):
        products.append((hidden, weight, original(hidden, weight)))
        return products[-1][2]

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    found = list(projections(torch.device("cpu"), torch.float32, {"q, k, v": (16, (16, 8, 8))}, [5, 7]))
    assert [(one["projections"], one["rows"]) for one in found] == [("q, k, v", 5), ("q, k, v", 7)]
    for one in found:
        assert one["ratio"] == pytest.approx(one["together_ms"] / one["apart_ms"])
    q, k, v = (output for _, _, output in products[:3])
    as_one = next(output for _, weight, output in products if len(weight) == 32)
    torch.testing.assert_close(torch.cat([q, k, v], 1), as_one)
