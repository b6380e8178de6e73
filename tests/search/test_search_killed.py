"""``kill -9`` at any moment, the same search again: the same trials, captions, scores and front."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_search import FakeCaptioner, WordScoring, new_study, run_search
from killing import child, die_at

from kvtune.analysis.summarize import summarize
from kvtune.study.caption_log import read_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder

pytestmark = pytest.mark.usefixtures("optuna_in_step")

TRIALS = 6
IMAGES = 6


class Counting(FakeCaptioner):
    """Writes each request down, before it is answered, where it survives the process."""

    def __init__(self, record: Path) -> None:
        super().__init__(in_flight=4)
        self.record = record

    def finish(self, batch: list[Any]) -> Any:
        with self.record.open("a") as file:
            file.write("".join(f"{request.tag} {request.image_id}\n" for request in batch))
        yield from super().finish(batch)


def search(folder: StudyFolder, record: Path) -> None:
    with locked(folder.path):
        run_search(folder, load_manifest(folder), TRIALS, Counting(record))


def found(folder: StudyFolder) -> tuple[Any, ...]:
    summary = summarize(folder)
    captions = {path.name: read_captions(path) for path in sorted(folder.captions.iterdir())}
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.database}")
    stored = [(trial.number, trial.state, trial.params, trial.values, trial.user_attrs) for trial in study.trials]
    return summary.trials, summary.front, summary.baseline, summary.reference_point, captions, stored


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, ...]]:
    results: dict[str, tuple[Any, ...]] = {}

    def result(sampler: str) -> tuple[Any, ...]:
        if sampler not in results:
            folder, manifest = new_study(tmp_path_factory.mktemp(sampler) / "s", images=IMAGES, sampler=sampler)
            run_search(folder, manifest, TRIALS)
            results[sampler] = found(folder)
        return results[sampler]

    return result


@pytest.mark.parametrize(("sampler", "seed"), [("nsga2", 0), ("tpe", 1)])
def test_killed_at_random_steps(
    tmp_path: Path, sampler: str, seed: int, undisturbed: Callable[[str], tuple[Any, ...]]
) -> None:
    folder, _ = new_study(tmp_path / "s", images=IMAGES, sampler=sampler)
    record = tmp_path / "requests"
    draw = random.Random(seed)
    kills = 0
    while True:
        step = draw.randint(1, 60)
        ended = child(lambda step=step: (die_at(step), search(folder, record)))  # type: ignore[misc]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        assert kills < 60
    assert kills >= 4
    assert found(folder) == undisturbed(sampler)
    assert not list(folder.path.glob(".study*")), "nothing half-written stays"
    requests = record.read_text().split("\n")[:-1]
    assert len(set(requests)) == (TRIALS + 1) * IMAGES
    assert len(requests) <= (TRIALS + 1) * IMAGES + 4 * kills, "only captions in flight were made again"


def test_killed_at_every_step_of_a_small_search(tmp_path: Path, undisturbed: Callable[[str], tuple[Any, ...]]) -> None:
    """From one study's disk at each of its first steps, the search goes on to the same end."""
    folder, _ = new_study(tmp_path / "s", images=IMAGES, sampler="nsga2")
    for step in range(1, 200, 9):
        ended = child(lambda step=step: (die_at(step), search(folder, tmp_path / "requests")))  # type: ignore[misc]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    else:
        search(folder, tmp_path / "requests")
    assert found(folder) == undisturbed("nsga2")


def test_killed_by_the_clock(tmp_path: Path, undisturbed: Callable[[str], tuple[Any, ...]]) -> None:
    folder, _ = new_study(tmp_path / "s", images=IMAGES, sampler="tpe")
    record = tmp_path / "requests"
    draw = random.Random(3)
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        process = context.Process(target=search, args=(folder, record))
        process.start()
        time.sleep(draw.uniform(0.05, 0.6))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    search(folder, record)
    assert found(folder) == undisturbed("tpe")


def test_a_journal_left_by_a_kill_does_not_spoil_the_new_database(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=IMAGES)
    run_search(folder, manifest, TRIALS)
    before = found(folder)
    # A killed writer's journal, and a database that says something else than the ledger: both are replaced.
    folder.database.with_name("study.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    folder.database.write_bytes(b"not a database")
    run_search(folder, load_manifest(folder), TRIALS)
    assert found(folder) == before
    assert not folder.database.with_name("study.db-journal").exists()


def test_a_killed_rescoring_is_made_good_by_the_next_search(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=IMAGES)
    run_search(folder, manifest, TRIALS)
    whole, manifest = new_study(tmp_path / "whole" / "s", images=IMAGES)
    scoring = WordScoring("words-2", blind_to="cat")
    run_search(whole, manifest, TRIALS, scoring=scoring)

    def again() -> None:
        with locked(folder.path):
            run_search(folder, load_manifest(folder), TRIALS, scoring=scoring)

    for step in range(1, 60, 4):
        if child(lambda step=step: (die_at(step), again())) == 0:  # type: ignore[misc]
            break
    again()
    assert found(folder) == found(whole)
