"""``rescore`` against another ground truth, killed at any moment: all is old or all is new."""

import json
import os
import random
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pytest
from killing import child, die_at
from scored_studies import HOLDOUT, scored_study

import kvtune.study.rescore as module
from kvtune.analysis.selection import Choice
from kvtune.analysis.summarize import summarize
from kvtune.chair import load_ground_truth
from kvtune.errors import KvtuneError
from kvtune.report.data.document import study_document
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.rescore import rescore_study
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import steadily
from kvtune.study.trials import Ledger
from kvtune.text import sqlite_url

TRIALS, IMAGES = 6, 12


def other_truth(coco: Path, manifest: Any) -> dict[int, set[str]]:
    """What ``--coco`` brings: a dog in every image and nothing else."""
    return {image_id: {"dog"} for image_id in [*manifest.tune.image_ids, *HOLDOUT]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, str, str]:
    """A study, its old state and its new one."""
    folder = scored_study(tmp_path_factory.mktemp("old") / "study", images=IMAGES, trials=TRIALS)
    rescore_study(folder)
    whole = Path(shutil.copytree(folder.path, tmp_path_factory.mktemp("new") / "study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "truth_from_coco", other_truth)
        rescore_study(StudyFolder(whole), Path("coco"))
    return folder, state(folder), state(StudyFolder(whole))


def state(folder: StudyFolder) -> str:
    """What anybody can read of a study's scores."""
    study = optuna.load_study(study_name=folder.name, storage=sqlite_url(folder.database))
    ledger, manifest = Ledger(folder.ledger), load_manifest(folder)
    return json.dumps(
        {
            "summary": study_document(summarize(folder), Choice(None, "keep-f1", "")),
            "truth": {str(key): sorted(names) for key, names in load_ground_truth(folder.ground_truth).items()},
            "scoring": [trial.scoring for trial in [ledger.baseline, *ledger.trials]],
            "scores": [trial.metrics for trial in [ledger.baseline, *ledger.trials]],
            "manifest": [manifest.reference_point and manifest.reference_point.model_dump(), manifest.scorer],
            "optuna": [[trial.values, trial.user_attrs] for trial in study.trials],
            "baseline": study.user_attrs["baseline"],
        }
    )


@pytest.fixture
def study(
    tmp_path: Path, recorded: tuple[StudyFolder, str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[StudyFolder, str, str]:
    """A copy of the study to be scored again, its old state and what is to be its new one."""
    monkeypatch.setattr(module, "truth_from_coco", other_truth)
    folder, old, new = recorded
    copy = StudyFolder(Path(shutil.copytree(folder.path, tmp_path / "study")))
    assert state(copy) == old != new
    return copy, old, new


def again(folder: StudyFolder) -> None:
    rescore_study(folder, Path("coco"))


def test_killed_at_every_step(study: tuple[StudyFolder, str, str]) -> None:
    folder, old, new = study
    seen = []
    for step in range(1, 2000):
        ended = child(lambda step=step: (die_at(step), again(folder)))  # type: ignore[misc]
        seen.append(state(folder))
        if ended == 0 or seen[-1] == new:
            break
        assert ended == -signal.SIGKILL
    assert set(seen) == {old, new}
    assert seen.index(new) == len(seen) - 1
    with locked(folder.path):
        assert state(folder) == new
        assert sorted(path.name for path in folder.path.iterdir()) == [
            ".lock", "captions", "ground_truth.json", "report", "study.db", "study.json", "trials.jsonl",
        ]  # fmt: skip


@pytest.mark.slow
def test_killed_by_the_clock(study: tuple[StudyFolder, str, str]) -> None:
    kills = int(os.environ.get("KVTUNE_KILLS", "12"))
    folder, old, new = study
    begun = time.monotonic()
    again(StudyFolder(Path(shutil.copytree(folder.path, folder.path.parent / "copy" / "study"))))
    truth = {int(key): set(names) for key, names in json.loads(old)["truth"].items()}
    lasts, draw, seen = time.monotonic() - begun, random.Random(0), []
    while len(seen) < kills:
        process = get_context("fork").Process(target=again, args=(folder,))
        process.start()
        time.sleep(draw.uniform(0, 1.2 * lasts))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        seen.append(state(folder))
        assert seen[-1] in (old, new)
        if seen[-1] == new:  # and back
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "truth_from_coco", lambda coco, manifest: truth)
                again(folder)
            assert state(folder) == old
    print(f"{kills} kills within {1.2 * lasts:.2f} s: {seen.count(old)} old, {seen.count(new)} new")


def test_what_cannot_be_written_changes_nothing(
    study: tuple[StudyFolder, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, old, _ = study

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for target in ("os.fsync", "pathlib.Path.rename", "optuna.Study.add_trial"):
        with monkeypatch.context() as patch:
            patch.setattr(target, full)
            with pytest.raises(KvtuneError, match="No space left on device"):
                again(folder)
        assert state(folder) == old
        assert not list(folder.path.glob("*rescored*"))


def test_a_reader_that_a_switch_overtakes_reads_again(study: tuple[StudyFolder, str, str]) -> None:
    folder, _, new = study
    reads = []

    def read() -> list[Any]:
        point = load_manifest(folder).reference_point
        assert point is not None
        reads.append(point.model_dump())
        if len(reads) == 1:
            again(folder)
        return [reads[-1], dict(Ledger(folder.ledger).baseline.metrics or {})]

    assert steadily(folder, read) == [json.loads(new)["manifest"][0], json.loads(new)["scores"][0]]
    assert len(reads) == 2


def test_a_reader_that_fails_amid_a_switch_reads_again(study: tuple[StudyFolder, str, str]) -> None:
    folder, *_ = study
    attempts = []

    def read() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            again(folder)
            raise KvtuneError("a file has just moved")
        return "read"

    assert steadily(folder, read) == "read"
    with pytest.raises(KvtuneError, match="always"):
        steadily(folder, lambda: (_ for _ in ()).throw(KvtuneError("always")))
