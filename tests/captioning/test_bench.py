"""The engine's bench on a tiny model: it counts what it says it counts."""

import copy
import dataclasses
import json

import pytest
import torch
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner
from kvtune.captioning.bench import bench_engine
from kvtune.captioning.bench.sweep import extrapolated_sweep

METHODS = [KVSmooth(0.1 * n, 5, 0.3, 0, 3) for n in range(1, 5)]


def test_arms_count_captions_and_useful_tokens():
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    lengths = [[5 + image + trial for trial in range(4)] for image in range(4)]
    result = bench_engine(
        vlm,
        random_images(4),
        METHODS,
        max_new_tokens=30,
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
    assert result["complete"]
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
    json.dumps(result)
    assert vlm.eos_token_ids == [2, 9, 14, 31, 40]  # as before the bench


def small_bench(**settings):
    settings = {"max_new_tokens": 12, "repeats": 2, "single": 1, "batch_sizes": (2,), "trials": (2,)} | settings
    return bench_engine(
        small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32)), random_images(2), METHODS, **settings
    )


def test_what_was_measured_is_handed_over_as_it_comes(monkeypatch):
    seen = []

    def keep(result):
        seen.append(copy.deepcopy(result))
        if len(seen) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_bench(keep=keep)
    assert [len(result["arms"]) for result in seen] == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert [arm["repeats"] for arm in seen[-1]["arms"]] == [2, 2, 2, 1, 1, 1]
    assert not any(result["complete"] for result in seen)
    assert seen[1]["ratios"].keys() == {"attached_over_plain_per_token"} and seen[1]["sweep"] is None
    assert seen[5]["sweep"]["extrapolated"] and seen[5]["noise"] is None


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
    assert sweep["seconds"] == pytest.approx(25000 + 4 * 12 + 1000)
    assert sweep["arithmetic"] == "50 x 500 captions / 1.00 captions/s + 4 rounds x 12.0 s + baseline 500 x 2.0000 s"


def test_a_run_too_short_to_be_steady_is_taken_whole():
    sweep = extrapolated_sweep([2.0, 2.0, 4.0, 4.0], 2, 2, 0.5, trials=4, images=10)
    assert not sweep["steady"] and sweep["measured"]["captions_per_second"] == 1.0
    assert sweep["seconds"] == pytest.approx(40 + 5)
