"""One study on a real local Ray whose workers and driver are killed (SIGKILL) again and again: nothing is lost.

It takes minutes, and runs where it is asked for: ``KVTUNE_KILLS=50 pytest -n 0 -m slow`` and this file.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

KILLS = int(os.environ.get("KVTUNE_KILLS", "0"))

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not KILLS, reason="KVTUNE_KILLS=50 runs it")]

from ray.cluster_utils import Cluster  # noqa: E402

from kvtune.analysis.summarize import summarize  # noqa: E402
from kvtune.study.study_folder import StudyFolder  # noqa: E402
from kvtune.study.trials import Ledger  # noqa: E402

TRIALS, IMAGES, WORKERS = 12, 60, 2
LANES = 4
"""Of a worker: so few that captions come a few at a time, and there is a moment for each kill."""
DRIVERS_SHARE = 0.2
"""Kills that are the driver's."""
CAPTIONS = (TRIALS + 1) * IMAGES
ASKED = (
    *("search", "--model", "demo", "--device", "cpu", "--study", "s", "--trials", TRIALS, "--parallel-trials", 4),
    *("--images", IMAGES, "--holdout-images", 5, "--max-new-tokens", 24),
)


def begin(parent: Path, *more: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "kvtune.cli.main", *ASKED, "--studies-dir", parent, *more]
    with (parent.with_suffix(".log")).open("ab") as log:
        return subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)


def workers() -> list[int]:
    """Ray's workers that write captions, of this process's own Ray."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if (entry / "cmdline").read_bytes().startswith(b"ray::WorkerActor"):
                    found.append(int(entry.name))
            except OSError:  # it has ended
                continue

    def is_own(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_own(parents[pid]))

    return sorted(pid for pid in found if is_own(pid))


def written(folder: StudyFolder) -> list[tuple[str, str]]:
    """Every whole line of a caption, with the name of its file."""
    return [
        (path.name, line)
        for path in sorted(folder.captions.glob("*.jsonl"))
        for line in path.read_text("utf-8").split("\n")[:-1]
    ]


def test_whoever_is_killed_nothing_is_lost_or_written_twice(tmp_path: Path) -> None:
    draw, begun = random.Random(0), time.monotonic()
    assert begin(tmp_path / "alone").wait() == 0
    alone, folder = (StudyFolder(tmp_path / name / "s") for name in ("alone", "killed"))
    moments = sorted(draw.randrange(5, int(0.7 * CAPTIONS)) for _ in range(KILLS))
    kills: Counter[str] = Counter()
    before: set[tuple[str, str]] = set()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": WORKERS, "include_dashboard": False})
    asked = tmp_path / "killed", "--cluster", cluster.address, "--workers", WORKERS, "--lanes", LANES
    try:
        driver = begin(*asked)
        for moment in moments:
            least = max(moment, len(written(folder)) + 1)
            while len(written(folder)) < least:
                time.sleep(0.02)
                if (code := driver.poll()) is not None:
                    assert code != 0, "the search ended before all kills"
                    kills["driver ended by itself"] += 1
                    driver = begin(*asked)
            alive = workers()
            if draw.random() < DRIVERS_SHARE or not alive:
                driver.kill()
                driver.wait()
                kills["driver"] += 1
            else:
                os.kill(draw.choice(alive), signal.SIGKILL)
                kills["worker"] += 1
            before |= set(written(folder))
            if driver.poll() is not None:
                driver = begin(*asked)
        while driver.wait() != 0:
            kills["driver ended by itself"] += 1
            driver = begin(*asked)
    finally:
        driver.kill()
        cluster.shutdown()
    after = written(folder)
    print(f"\n{dict(kills)}, {len(after)} captions, {time.monotonic() - begun:.0f} s")
    assert before <= set(after), "what was written stays"
    assert len({(name, json.loads(line)["image_id"]) for name, line in after}) == len(after), "nothing is there twice"
    assert Ledger(folder.ledger).trials == Ledger(alone.ledger).trials
    assert summarize(folder).front == summarize(alone).front
    assert kills["driver"] + kills["worker"] == KILLS
