"""The engine's bench on a tiny model: it counts what it says it counts."""

import copy
import dataclasses
import functools
import json

import pytest
import torch
from graph_like import like_a_gpu
from limited_memory import LimitedMemory
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.bench.engine import run
from kvtune.bench.engine.arms import Arm, best_batch, ratios, ratios_range
from kvtune.bench.engine.fitting import fitting
from kvtune.bench.engine.operations import operations, vision_operations
from kvtune.bench.engine.run import bench_engine
from kvtune.bench.engine.steps import StepTimes, time_steps
from kvtune.bench.engine.sweep import extrapolated_sweep
from kvtune.bench.engine.workload import Made, Workload
from kvtune.captioning import Captioner, decoding
from kvtune.captioning.grid import Grid
from kvtune.captioning.host_copy import HostCopy
from kvtune.captioning.prefill import prefill
from kvtune.errors import RequestError
from kvtune.report.terminal.engine_bench import engine_lines

READ = HostCopy.read
MEASURED = functools.cache(run.measure_device)
METHODS = [KVSmooth(0.1 * n, 5, 0.3, 0, 3) for n in range(1, 5)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Steps timed once in a whole bench, where it shows no more to do it five times, and a device measured once."""
    monkeypatch.setattr(run, "time_steps", functools.partial(time_steps, pairs=1))
    monkeypatch.setattr(run, "measure_device", MEASURED)


def test_arms_count_captions_and_useful_tokens():
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    lengths = [[5 + image + trial for trial in range(4)] for image in range(4)]
    result = bench_engine(
        Captioner(vlm, max_new_tokens=30),
        random_images(4),
        METHODS,
        lengths=lambda image, trial: lengths[image][trial],
        repeats=1,
        single=2,
        batch_sizes=(2, 4),
        trials=(2, 4),
    )
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert list(arms) == ["a0", "a", "b", "c", "d", "e2", "e4"]
    assert [arms[name]["captions"] for name in arms] == [2, 2, 4, 4, 4, 8, 16]
    one_each = sum(lengths[image][0] for image in range(4))
    assert arms["a0"]["tokens"] == arms["a"]["tokens"] == lengths[0][0] + lengths[1][0]
    assert arms["b"]["tokens"] == arms["c"]["tokens"] == arms["d"]["tokens"] == one_each
    assert arms["e4"]["tokens"] == sum(map(sum, lengths))
    noise = {"captions": 4, "changed": 0, "chair_s_one_lane": None, "chair_s_full_grid": None, "chair_s_change": None}
    assert result["noise"] == noise
    assert result["complete"] and not result["failed"]
    assert [arm["batch"] for arm in result["arms"]] == [1, 1, result["arms"][2]["batch"], 4, 4, 8, 16]
    assert all(arm["asked_batch"] is None for arm in result["arms"])
    assert [arm["repeats"] for arm in result["arms"]] == [1] * 7
    assert arms["d"]["ms_per_step"] == pytest.approx(
        1e3 * arms["d"]["seconds"] / (max(lengths[n][0] for n in range(4)) - 1)
    )
    memory = result["memory"]
    assert memory["predicted_over_measured"] == memory["plan"]["peak"] / memory["measured_peak"]
    assert set(result["ratios"]) == {
        "attached_over_plain_per_token",
        "smoothing_over_none_per_step",
        *(f"e{n}_over_{other}{kind}" for n in (2, 4) for other in ("a0", "b") for kind in ("", "_tokens")),
    }
    ratio = arms["e4"]["tokens_per_second"] / arms["b"]["tokens_per_second"]
    assert result["ratios"]["e4_over_b_tokens"] == pytest.approx(ratio)
    assert result["ratios"].keys() == result["ratios_range"].keys()
    assert result["ratios_range"]["e4_over_b_tokens"] == pytest.approx([ratio, ratio])  # one repeat
    assert all(arm["of_matmul_all"] > arm["of_matmul"] for arm in result["arms"])
    json.dumps(result)
    assert vlm.eos_token_ids == [2, 9, 14, 31, 40]  # as before the bench
    assert result["spent"]["prompts"]["count"] == 4
    assert any(line.startswith("e4, ") and " steps 16 wide " in line for line in engine_lines(result))
    result["spent"] |= {"host_waited": 1.25, "captures": {"count": 2, "seconds": 0.5}}
    assert "  of these, the host waited 1.2 s for tokens, and captured 2 graphs in 0.5 s" in engine_lines(result)


def small_work(images, max_new_tokens=12, lengths=None):
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    captioner = Captioner(vlm, None, max_new_tokens, cuda_graphs=False)
    return Workload(captioner, random_images(images), lengths)


def small_bench(images=2, **settings):
    settings = {"repeats": 2, "single": 1, "batch_sizes": (2,), "trials": (2,)} | settings
    return bench_engine(small_work(images).captioner("auto"), random_images(images), METHODS, **settings)


@pytest.mark.parametrize("paged", [False, True])
def test_where_the_time_of_a_run_went(monkeypatch, paged):
    """Every step and every prompt is in it once, and nothing is longer than all."""
    if paged:
        like_a_gpu(monkeypatch)
    work = small_work(5, max_new_tokens=12, lengths=lambda image, trial: 4 + 2 * image)
    with work.ends_forced():
        made = work.engine([None])
    spent = made.spent.to_dict()
    assert sum(steps["count"] for steps in spent["steps"]) == made.steps
    widths = [steps["width"] for steps in spent["steps"]]
    assert widths == sorted(set(widths), reverse=True) and widths[0] == made.batch and len(widths) > 1
    assert spent["prompts"]["count"] == 5 and spent["prompts"]["batches"] == 1
    parts = [*(steps["seconds"] for steps in spent["steps"]), spent["prompts"]["seconds"]]
    assert min(parts) > 0 and sum(parts) < spent["seconds"] and 0 < spent["host_waited"] < spent["seconds"]
    assert spent["captures"] == {"count": 0, "seconds": 0}
    assert HostCopy.read is READ and decoding.prefill is prefill


def test_what_was_measured_is_handed_over_as_it_comes(monkeypatch):
    seen = []

    def keep(result):
        seen.append(copy.deepcopy(result))
        if len(seen) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_bench(keep=keep)
    assert [len(result["arms"]) for result in seen] == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert [arm["repeats"] for arm in seen[-1]["arms"]] == [2, 2, 1, 1, 1, 2]
    assert not any(result["complete"] for result in seen)
    assert seen[2]["ratios"].keys() == {"e2_over_a0", "e2_over_a0_tokens"} and seen[2]["sweep"] is None
    assert seen[6]["sweep"]["extrapolated"] and seen[6]["noise"] is None


def test_ratios_have_the_range_of_their_repeats():
    """Arm e4 over b: 2, 3 and 4 times as fast in one repeat each; a0 was measured in two of them alone."""
    arms = {"a0": (8.0, 8.0), "b": (4.0, 6.0, 8.0), "e4": (2.0, 2.0, 2.0)}
    arms = {name: made_in(name, seconds) for name, seconds in arms.items()}
    assert ratios(arms, (4,))["e4_over_b"] == 3.0
    assert ratios_range(arms, (4,)) == {
        "e4_over_a0": [4.0, 4.0],
        "e4_over_a0_tokens": [4.0, 4.0],
        "e4_over_b": [2.0, 4.0],
        "e4_over_b_tokens": [2.0, 4.0],
    }


def made_in(name, seconds):
    values = {field.name: 0 for field in dataclasses.fields(Arm)}
    median = sorted(seconds)[len(seconds) // 2]
    speeds = {"captions_per_second": 6 / median, "tokens_per_second": 60 / median}
    return Arm(**values | {"name": name, "captions": 6, "tokens": 60, "every_seconds": list(seconds)} | speeds)


def out_of_memory(*arguments):
    raise torch.OutOfMemoryError("CUDA out of memory")


def generate_up_to(most, monkeypatch):
    """Let ``generate()`` run out of memory where it is given more than ``most`` rows; what it was given is returned."""
    original, asked = Workload.generate, []

    def generate(self, chosen, batch, attention, method):
        asked.append(min(batch, len(chosen)))
        if asked[-1] > most:
            out_of_memory()
        return original(self, chosen, batch, attention, method)

    monkeypatch.setattr(Workload, "generate", generate)
    return asked


def test_batch_sizes_that_do_not_fit_are_passed_over(monkeypatch):
    asked = generate_up_to(4, monkeypatch)
    work = small_work(16)
    assert best_batch(work, [2, 8, 16, 4]) in (2, 4)
    assert asked == [2, 4, 8]
    assert best_batch(work, [8, 16]) == 4
    assert asked[3:] == [8, 4]


def test_an_arm_that_does_not_fit_takes_a_smaller_batch_and_says_so(monkeypatch):
    """The best batch size, found on short captions, has no room for long ones."""
    monkeypatch.setattr(run, "best_batch", lambda work, sizes: 8)
    generate_up_to(2, monkeypatch)
    seen = []
    result = small_bench(8, keep=lambda result: seen.append(copy.deepcopy(result)), batch_sizes=(8,))
    arm = next(arm for arm in result["arms"] if arm["name"] == "b")
    assert (arm["batch"], arm["asked_batch"], arm["captions"], arm["repeats"]) == (2, 8, 8, 2)
    assert arm["what"] == "generate(), batch 2, SDPA, no method"
    assert result["complete"] and not result["failed"]
    said = next(line for line in engine_lines(result) if line.startswith("b "))
    assert said == (
        "b   generate(), batch 2, SDPA, no method, 8 captions; batch 8 does not fit into the device's memory"
    )


def test_on_a_device_of_little_memory_a_batch_is_halved_until_it_fits():
    """Memory for half of what the largest batch needs, counted tensor by tensor."""

    def batched(size):
        return work.generate(work.all, size, "sdpa", None)

    work = small_work(32)
    with LimitedMemory() as ample:
        batched(32)
    with LimitedMemory() as of_one:
        batched(1)
    assert of_one.peak < ample.peak / 4
    with LimitedMemory(ample.peak // 2) as device:
        size, made = fitting(batched, 32)
    assert device.refusals > 0
    assert size in (4, 8, 16) and made.batch == size and made.captions == 32


def test_an_arm_that_cannot_run_is_named_and_the_others_go_on(monkeypatch):
    original = Workload.engine

    def engine(self, methods):
        if methods == METHODS[:1]:
            raise RuntimeError("a kernel\ncannot be built")
        return original(self, methods)

    monkeypatch.setattr(Workload, "engine", engine)
    result = small_bench()
    assert [arm["name"] for arm in result["arms"]] == ["a0", "a", "b", "c", "e2"]
    assert result["failed"] == {"d": "a kernel cannot be built"}
    assert result["complete"] and result["noise"] and result["memory"] and result["steps"]
    assert "d was not measured: a kernel cannot be built" in engine_lines(result)


@pytest.mark.parametrize("what", ["time_steps", "memory", "noise", "best_batch"])
def test_a_check_that_cannot_run_costs_itself_alone(monkeypatch, what):
    monkeypatch.setattr(run, what, out_of_memory)
    result = small_bench(repeats=1)
    name = {"time_steps": "steps", "best_batch": "best batch"}.get(what, what)
    assert result["failed"] == {name: "CUDA out of memory"}
    assert [arm["name"] for arm in result["arms"]] == ["a0", "a", "b", "c", "d", "e2"]
    assert (result["steps"] is None, result["memory"] is None, result["noise"] is None) == (
        what == "time_steps",
        what == "memory",
        what == "noise",
    )


def test_a_wrong_request_is_wrong_for_all_arms():
    with pytest.raises(RequestError, match="layers"):
        bench_engine(small_work(1).captioner("auto"), random_images(1), [KVSmooth(0.5, end_layer=9)], trials=(1,))


def test_steps_are_timed_at_full_width_without_prefill(monkeypatch):
    """Of 24 tokens the prefill gives the first; of 23 steps the later half counts, in two runs a pair."""
    stepped = []
    original = Grid.step

    def step(self, running):
        stepped.append(len(running))
        return original(self, running)

    monkeypatch.setattr(Grid, "step", step)
    work = small_work(4, max_new_tokens=30)
    turns = list(time_steps(work, {"one": METHODS[0], "other": METHODS[1]}, rows=8, trials=2, pairs=3))
    assert stepped == [8] * 23 * 3 * 3
    assert [len(turn["one"].with_ms) for turn in turns] == [1, 2, 3]
    one, other = turns[-1]["one"], turns[-1]["other"]
    assert (one.rows, one.steps) == (other.rows, other.steps) == (8, 12)
    assert one.without_ms == other.without_ms and one.with_ms != other.with_ms
    assert min(one.with_ms + one.without_ms + one.with_processor_ms + one.without_processor_ms) > 0
    assert Grid.step is step
    assert work.vlm.eos_token_ids == [2, 9, 14, 31, 40]


def test_steps_that_do_not_fit_are_timed_as_wide_as_they_do(monkeypatch):
    """The engine halves a grid of 8 rows, and its captions take two turns of 23 steps."""
    original = Grid.step

    def step(self, running):
        return original(self, running) if len(running) <= 4 else out_of_memory()

    monkeypatch.setattr(Grid, "step", step)
    (times,) = time_steps(small_work(4, max_new_tokens=30), {"one": METHODS[0]}, rows=8, trials=2, pairs=1)
    assert (times["one"].rows, times["one"].steps) == (4, 23)


def test_ratios_of_steps_are_of_pairs():
    """A machine that gets slower: each run with the method is twice one without."""
    times = StepTimes(8, 12, [1.0, 2.0, 10.0], [1.0, 1.0, 2.0], [2.0, 5.0, 20.0], [1.5, 2.0, 2.0]).to_dict()
    assert (times["ratio"], times["ratio_range"], times["pairs"]) == (2.0, [2.0, 2.5], 3)
    assert (times["processor_ratio"], times["processor_ratio_range"]) == (1.5, [1.0, 2.0])


def test_operations_by_hand():
    """A LLaVA of 3 layers of width 32, 4 heads on 2 kv heads, counted apart from the code."""
    work = small_work(2, lengths=lambda image, trial: 10)
    prompt = work.prompt_tokens
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 64 + 2 * 32
    head = 60 * 32
    attention = 4 * 3 * 32
    # Vision tower: patches of 4x4x3 into 16, two layers of width 16 over 17 tokens; then 16 tokens, 16 to 32 to 32.
    vision = 2 * (16 * 48 * 16 + 2 * 17 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * (16 * 32 + 32 * 32))
    assert vision_operations(work) == vision
    made = Made(captions=4, tokens=40, steps=9, batch=4, prompts=2)
    a_prompt = vision + 2 * 3 * layer * prompt + 2 * head + attention * prompt**2 // 2
    a_token = 2 * (3 * layer + head) + attention * (prompt + 5)
    assert operations(work, made, vision) == 2 * a_prompt + 36 * a_token


def test_noise_in_captions_and_in_chair_s(monkeypatch):
    """A model whose captions depend on the lane they are in: the change is counted and scored."""
    scored = []

    def chair_s(captions):
        scored.append(captions)
        return 10.0 * len(scored)

    original = Captioner.run

    def depends_on_lanes(self, requests):
        for caption in original(self, requests):
            other = self.lanes == 1 and caption.image_id == 1
            yield dataclasses.replace(caption, token_ids=(7,), text="another") if other else caption

    monkeypatch.setattr(Captioner, "run", depends_on_lanes)
    noise = small_bench(chair_s=chair_s, repeats=1)["noise"]
    assert noise == {
        "captions": 2,
        "changed": 1,
        "chair_s_one_lane": 10.0,
        "chair_s_full_grid": 20.0,
        "chair_s_change": 10.0,
    }
    assert scored[0][1] == "another" != scored[1][1] and scored[0][0] == scored[1][0]


def test_a_sweep_is_extrapolated_from_the_steady_slice():
    """10 rows, a caption each second in the steady part, 5 s to fill and 7 s to empty beyond that."""
    finished = [5.0 + n for n in range(1, 91)] + [95.0 + 1.7 * n for n in range(1, 11)]
    sweep = extrapolated_sweep(finished, 10, parallel_trials=16, baseline_seconds=2.0, trials=50, images=500)
    assert sweep["steady"] and sweep["extrapolated"]
    assert sweep["measured"]["captions_per_second"] == pytest.approx(1.0)
    assert (sweep["measured"]["captions"], sweep["measured"]["seconds"]) == (80, 80.0)
    assert sweep["measured"]["edge_seconds_a_round"] == pytest.approx(12.0)
    # Three rounds of 16 trials take 8,012 s each, and one of 2 a fifteenth of the way there from one alone.
    last = 1000 + (8012 - 1000) / 15
    assert sweep["seconds"] == pytest.approx(3 * 8012 + last + 1000)
    assert sweep["arithmetic"] == (
        "3 rounds x (16 x 500 captions / 1.00 captions/s + 12.0 s) + a round of 2 x 500, 1467.5 s "
        "+ baseline 500 x 2.0000 s"
    )


def test_a_sweep_of_whole_rounds_has_no_other():
    finished = [5.0 + n for n in range(1, 91)] + [95.0 + 1.7 * n for n in range(1, 11)]
    sweep = extrapolated_sweep(finished, 10, parallel_trials=2, baseline_seconds=2.0, trials=6, images=500)
    assert sweep["seconds"] == pytest.approx(3 * (1000 + 12) + 1000)
    assert "a round of" not in sweep["arithmetic"]


def test_a_run_too_short_to_be_steady_is_taken_whole():
    sweep = extrapolated_sweep([2.0, 2.0, 4.0, 4.0], 2, 2, 0.5, trials=4, images=10)
    assert not sweep["steady"] and sweep["measured"]["captions_per_second"] == 1.0
    assert sweep["seconds"] == pytest.approx(40 + 5)
