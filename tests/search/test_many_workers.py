"""A search whose captions are made by workers that only pretend: kills of workers and of the search itself."""

import random
from pathlib import Path
from typing import Any

import pytest
from fake_search import caption_text, new_study, run_search
from killing import child, die_at

from kvtune.analysis.summarize import summarize
from kvtune.bench.cluster.pretended import PretendedBackend
from kvtune.captioning.cluster.data_parallel import DataParallelCaptioner
from kvtune.captioning.cluster.pool import WorkerPool
from kvtune.study.caption_log import read_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder

pytestmark = pytest.mark.usefixtures("without_optuna")

TRIALS, IMAGES, KILLS = 8, 60, 50
RACE = 0.9


def pretended(workers: int, seed: int | None = None) -> DataParallelCaptioner:
    """A captioner whose workers write what the fake captioner does; with a seed some of them are killed in between."""
    now, draw = 0.0, random.Random(seed)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if seed is not None and draw.random() < 0.02:
            draw.choice(backend.workers).is_dead = True

    def write(request: Any) -> tuple[str, int]:
        text = caption_text(request.image_id, request.method, shared_luck=True)
        return text, len(text.split())

    backend = PretendedBackend([7.0 + worker for worker in range(workers)], write, 8, lambda: now, sleep)
    pool = WorkerPool(backend, {}, clock=lambda: now)
    pool.start()
    return DataParallelCaptioner(pool)


def search(folder: StudyFolder, workers: int, seed: int | None = None) -> None:
    with locked(folder.path):
        run_search(folder, load_manifest(folder), TRIALS, pretended(workers, seed))


def found(folder: StudyFolder) -> tuple[Any, ...]:
    """What a search comes to; captions beyond the look at which a trial was stopped differ from run to run."""
    summary = summarize(folder)
    ledger = folder.ledger.read_text("utf-8")
    return summary.trials, summary.front, summary.baseline, summary.reference_point, ledger


@pytest.mark.slow
def test_any_number_of_workers_and_fifty_kills_come_to_the_same(tmp_path: Path) -> None:
    alone, _ = new_study(tmp_path / "alone" / "s", images=IMAGES, race=RACE)
    search(alone, 1)
    folder, _ = new_study(tmp_path / "killed" / "s", images=IMAGES, race=RACE)
    draw = random.Random(0)
    kills = 0
    written: dict[str, dict[int, Any]] = {}
    while kills < KILLS:
        step = draw.randint(1, 40)
        if child(lambda step=step, seed=kills: (die_at(step), search(folder, 5, seed))) == 0:  # type: ignore[misc]
            break
        kills += 1
        for path in folder.captions.glob("*.jsonl"):
            there = read_captions(path)  # refuses an image that has two captions
            assert written.get(path.name, {}).items() <= there.items(), "what was written stays"
            written[path.name] = there
    else:
        search(folder, 5, KILLS)
    assert kills > KILLS // 2
    assert found(folder)[:4] == found(alone)[:4]
