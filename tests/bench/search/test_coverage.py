"""Simulated studies against naive ones, and what theory says of their intervals."""

import json
import subprocess
import sys

import numpy as np
import pytest
from recorded_worlds import made_up_table

from kvtune.bench.search.coverage import Pool, simulate
from kvtune.chair import COLUMNS, METRICS
from kvtune.statistics.bootstrap import Bootstrap


@pytest.fixture(scope="module")
def table():
    axes = {
        "lambda_ref": (0.1, 0.3, 0.5, 0.9), "queue_length": (15,), "clip_width": (0.2,), "start_layer": (0, 3),
        "end_layer": (5, 8),
    }  # fmt: skip
    return made_up_table(1000, axes)


def test_choice_is_lowest_chair_s_that_keeps_f1(table):
    counts, pool = table.counts(), Pool(table)
    draw = np.random.default_rng(0)
    for _ in range(5):
        images = draw.integers(0, 1000, 60)
        sums = [dict(zip(COLUMNS, counts[one][images].sum(axis=0).tolist(), strict=True)) for one in range(len(counts))]
        f1 = [2 * one["correct"] / (one["mentioned"] + one["present"]) for one in sums]
        chair_s = [one["hallucinated_captions"] for one in sums]
        keeping = [one for one in range(1, len(counts)) if f1[one] >= f1[0]]
        best = min(keeping, key=lambda one: (chair_s[one], -f1[one]), default=None)
        assert pool.chosen(images, "keep-f1") == best
        assert pool.chosen(images, "min-chair") == min(range(1, len(counts)), key=lambda one: (chair_s[one], -f1[one]))


def test_judged_against_the_products_intervals(table):
    counts, pool = table.counts(), Pool(table)
    images = np.random.default_rng(1).integers(0, 1000, 80)
    rows = pool.judged(4, images, 200)
    bootstrap = Bootstrap(counts[:, images], 200)
    everything = Bootstrap(counts, 10).estimates
    for place, metric in enumerate(METRICS):
        low, high = bootstrap.intervals(4)[metric]
        truth, baseline = everything[metric][4], everything[metric][0]
        value, (least, most) = bootstrap.difference(metric, 4, 0)
        assert rows[place, 0] == (low <= truth <= high)
        assert rows[place, 1] == pytest.approx(bootstrap.estimates[metric][4] - truth)
        assert rows[place, 2] == (least <= truth - baseline <= most)
        assert rows[place, 3] == pytest.approx(value - (truth - baseline))


def test_held_out_intervals_cover_and_are_unbiased_where_tune_is_optimistic(table, tmp_path):
    table.save(tmp_path / "pool.npz")
    result = simulate(tmp_path / "pool.npz", studies=300, images=150, rule="min-chair", resamples=400)
    assert result["none"] == 0
    for metric, found in result["coverage"].items():
        # 95 % and three standard errors of 300 studies are 91.2 to 98.8 %; percentile intervals fall a little short.
        assert 89 <= found["held_out"]["covered"] <= 99, metric
        assert 89 <= found["held_out"]["difference_covered"] <= 99, metric
    chair_s = result["coverage"]["chair_s"]
    assert abs(chair_s["held_out"]["mean_error"]) < 0.8  # a standard error is 4 / sqrt(300)
    assert chair_s["tune"]["mean_error"] < -1


def test_command(table, tmp_path):
    table.save(tmp_path / "pool.npz")
    command = [sys.executable, "-m", "kvtune.cli.main", "bench", "search", "--coverage", "--table"]
    command += [str(tmp_path / "pool.npz"), "--studies", "20", "--images", "50"]
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result == json.loads(json.dumps(simulate(tmp_path / "pool.npz", 20, 50)))
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    shown = " ".join(shown.split())
    assert "20 simulated studies of 50 tune and 50 held-out images, truth: 16 settings on 1,000 images" in shown
