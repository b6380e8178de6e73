"""Scores rebuilt from stored captions."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_search import WordScoring, fake_images, new_study, run_search

import kvtune.study.rescore as module
from kvtune.analysis.summarize import summarize
from kvtune.chair import save_ground_truth
from kvtune.errors import KvtuneError, RequestError
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.rescore import rescore_study
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made, manifest = new_study(tmp_path / "study", images=8)
    run_search(made, manifest, 6)
    save_ground_truth({image_id: {"dog"} for image_id, _ in fake_images(8)}, made.ground_truth)
    return made


@pytest.fixture
def new_scorer(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def scoring(ground_truth: Any) -> WordScoring:
        asked.append(ground_truth)
        return WordScoring("words-2", blind_to="dog")

    monkeypatch.setattr(module, "Scoring", scoring)
    return asked


def test_everything_is_scored_by_the_new_scorer(folder: StudyFolder, new_scorer: list[Any], tmp_path: Path) -> None:
    before = summarize(folder)
    assert rescore_study(folder) == 7
    after = summarize(folder)
    whole, manifest = new_study(tmp_path / "whole" / "study", images=8)
    run_search(whole, manifest, 6, scoring=WordScoring("words-2", blind_to="dog"))
    straight = summarize(whole)
    assert (after.baseline, after.reference_point) == (straight.baseline, straight.reference_point)
    assert [trial.params for trial in after.trials] == [trial.params for trial in before.trials]
    assert after.trials[:4] == straight.trials[:4]
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{folder.database}")
    assert [trial.values for trial in study.trials] == [list(trial.point or ()) for trial in after.trials]
    assert {trial.user_attrs["scorer"] for trial in study.trials} == {"words-2"}
    assert load_manifest(folder).scorer == "words-2"
    assert new_scorer == [{image_id: {"dog"} for image_id, _ in fake_images(8)}]


def test_the_same_scorer_changes_nothing(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Scoring", lambda ground_truth: WordScoring())
    before = summarize(folder), Ledger(folder.ledger).trials, folder.manifest.read_bytes()
    assert rescore_study(folder) == 0
    assert (summarize(folder), Ledger(folder.ledger).trials, folder.manifest.read_bytes()) == before


def test_scores_that_differ_by_rounding_alone_are_no_other_scores(folder: StudyFolder, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "Scoring", lambda ground_truth: WordScoring())
    events = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    judged = [event for event in events if event["event"] == "complete"]
    judged[1]["metrics"]["f1"] = math.nextafter(judged[1]["metrics"]["f1"], math.inf)
    judged[2]["metrics"]["f1"] += 1e-6
    folder.ledger.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert rescore_study(folder) == 1


def test_failed_and_running_trials_stay_as_they_are(folder: StudyFolder, new_scorer: list[Any]) -> None:
    lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    for line in lines:
        if line["number"] == 4 and line["event"] == "complete":
            del line["metrics"], line["scoring"], line["captions"]
            line |= {"event": "failed", "reason": "why not"}
    lines.append({"number": 6, "event": "asked", "params": lines[1]["params"], "published": False, "sampler": {}})
    folder.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rescore_study(folder)
    assert [trial.state for trial in Ledger(folder.ledger).trials] == ["complete"] * 4 + [
        "failed",
        "complete",
        "running",
    ]


def test_missing_captions_are_named_and_nothing_changes(folder: StudyFolder, new_scorer: list[Any]) -> None:
    path = folder.trial_captions(2)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    before = folder.ledger.read_bytes(), folder.database.read_bytes()
    with pytest.raises(KvtuneError, match=r"trial-0002.jsonl has no caption of image \d+ \(2 missing\)"):
        rescore_study(folder)
    assert (folder.ledger.read_bytes(), folder.database.read_bytes()) == before


def test_a_study_in_use_is_refused(folder: StudyFolder) -> None:
    with locked(folder.path), pytest.raises(RequestError, match=r"is in use by process \d+; wait for it$"):
        rescore_study(folder)


def test_reading_a_study_needs_neither_torch_nor_optuna(folder: StudyFolder) -> None:
    code = (
        "import sys; from kvtune.study.study_folder import StudyFolder; from pathlib import Path;"
        "from kvtune.analysis.summarize import summarize; from kvtune.analysis.overview import overviews;"
        "from kvtune.analysis.export import export;"
        f"path = Path({str(folder.path)!r}); assert len(summarize(StudyFolder(path)).trials) == 6;"
        "assert overviews(path.parent)[0].study == 'study'; export(StudyFolder(path), 'min-chair');"
        "print([name for name in ('torch', 'optuna', 'transformers') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


def test_scoring_again_needs_no_torch(folder: StudyFolder) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path;"
        "from kvtune.study.rescore import rescore_study; from kvtune.study.study_folder import StudyFolder;"
        f"rescore_study(StudyFolder(Path({str(folder.path)!r})))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
