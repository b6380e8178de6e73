"""The Optuna storage follows the ledger, and can be built again from it."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from fake_search import new_study, run_search
from optuna.trial import TrialState

from kvtune.analysis.summarize import summarize
from kvtune.errors import KvtuneError, RequestError
from kvtune.study.manifest import load_manifest
from kvtune.study.optuna_copy import OptunaCopy
from kvtune.study.optuna_trials import user_attributes
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, LedgerWriter, Trial


def stored(folder: StudyFolder, url: str | None = None) -> list[tuple[object, ...]]:
    study = optuna.load_study(study_name=folder.name, storage=url or f"sqlite:///{folder.database}")
    return [(trial.number, trial.state, trial.params, trial.values, trial.user_attrs) for trial in study.trials]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made, manifest = new_study(tmp_path / "study", images=5)
    run_search(made, manifest, 5)
    return made


def follow(folder: StudyFolder, url: str | None = None) -> None:
    copy = OptunaCopy(folder, load_manifest(folder), url)
    copy.follow(Ledger(folder.ledger))
    copy.close()


def test_attributes_say_what_became_of_a_trial() -> None:
    metrics = {"chair_s": 40.0, "f1": 60.5, "images": 10}
    for trial, more in (
        (Trial(0, published=True, state="complete", metrics=metrics), {"published": True}),
        (Trial(5, state="raced", metrics=metrics, by=0), {"raced_out_by": 0}),
        (Trial(6, state="complete", metrics=metrics), {}),
    ):
        assert user_attributes(trial) == metrics | more
    assert user_attributes(Trial(7, state="failed", reason="out of memory")) == {"reason": "out of memory"}


@pytest.mark.parametrize("damage", ["missing", "empty", "rubbish", "truncated"])
def test_a_lost_database_is_built_again(folder: StudyFolder, damage: str) -> None:
    before = stored(folder)
    whole = folder.database.read_bytes()
    if damage == "missing":
        folder.database.unlink()
    else:
        folder.database.write_bytes({"empty": b"", "rubbish": b"x" * 5000, "truncated": whole[:3000]}[damage])
    follow(folder)
    assert stored(folder) == before


def test_a_database_that_says_something_else_is_built_again(folder: StudyFolder) -> None:
    ledger = LedgerWriter(folder.ledger)
    ledger.rewrite(lambda trial: replace(trial, metrics=trial.metrics | {"f1": 1.5}) if trial.metrics else trial)
    ledger.close()
    follow(folder)
    assert [values[1] for _, _, _, values, _ in stored(folder)] == [1.5] * 5  # type: ignore[index]


def test_trials_that_kvtune_did_not_ask_are_refused_and_rebuilt_without(folder: StudyFolder) -> None:
    before = stored(folder)
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.database}")
    study.enqueue_trial({"lambda_ref": 0.5})
    with pytest.raises(RequestError, match=r"has 6 trials, but kvtune asked 5; kvtune rescore \S+ builds it again"):
        follow(folder)
    copy = OptunaCopy(folder, load_manifest(folder), None)
    copy.rebuild(Ledger(folder.ledger))
    copy.close()
    assert stored(folder) == before


def test_the_old_database_stays_until_the_new_one_is_whole(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(folder)
    copy = OptunaCopy(folder, load_manifest(folder), None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kvtune.study.optuna_trials.user_attributes", full)
    with pytest.raises(KvtuneError, match=r"study.db failed: .*No space left.*no caption is lost"):
        copy.rebuild(Ledger(folder.ledger))
    copy.close()
    assert stored(folder) == before


def test_it_follows_a_growing_ledger(folder: StudyFolder, tmp_path: Path) -> None:
    """Trials that it was told of while they ran, those that it was not, and those that it finds after a kill."""
    growing = StudyFolder(tmp_path / "growing" / "study")
    growing.captions.mkdir(parents=True)
    events = folder.ledger.read_text().splitlines(keepends=True)
    copy = OptunaCopy(growing, load_manifest(folder), None)
    for upto in (0, 3, 6, 8, 9, 11, len(events)):
        growing.ledger.write_text("".join(events[:upto]))
        ledger = Ledger(growing.ledger)
        if upto in (0, 8):
            copy.close()  # as a killed process does
            copy = OptunaCopy(growing, load_manifest(folder), None)
            copy.follow(ledger)
        else:
            copy.update(ledger)
        assert [(number, state.is_finished()) for number, state, *_ in stored(growing)] == [
            (trial.number, trial.state != "running") for trial in ledger.trials
        ]
    copy.close()
    assert stored(growing) == stored(folder)


def test_it_is_told_of_a_few_trials_at_a_time(folder: StudyFolder, tmp_path: Path) -> None:
    growing = StudyFolder(tmp_path / "growing" / "study")
    growing.captions.mkdir(parents=True)
    events = folder.ledger.read_text().splitlines(keepends=True)
    growing.ledger.write_text("".join(events[:5]))  # the baseline's, then trials asked and not ended
    copy = OptunaCopy(growing, load_manifest(folder), None)
    copy.follow(Ledger(growing.ledger))
    asked = len(Ledger(growing.ledger).trials)
    growing.ledger.write_text("".join(events))
    ledger = Ledger(growing.ledger)
    calls = 1
    while not copy.update(ledger, most=1):
        calls += 1
    copy.close()
    assert calls == len(ledger.trials) and 0 < asked < calls
    assert stored(growing) == stored(folder)


def test_a_storage_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    folder, manifest = new_study(tmp_path / "study", images=5)
    run_search(folder, manifest, 5, storage=url)
    assert not folder.database.exists()
    assert [state for _, state, *_ in stored(folder, url)] == [TrialState.COMPLETE] * 5
    assert [values for *_, values, _ in stored(folder, url)] == [list(t.point or ()) for t in summarize(folder).trials]
    run_search(folder, load_manifest(folder), 7, storage=url)
    assert len(stored(folder, url)) == 7
    copy = OptunaCopy(folder, load_manifest(folder), url)
    before = stored(folder, url)
    copy.rebuild(Ledger(folder.ledger))
    copy.close()
    assert stored(folder, url) == before


def test_two_studies_of_one_name_do_not_share_a_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    one, manifest = new_study(tmp_path / "a" / "study", images=3)
    run_search(one, manifest, 2, storage=url)
    other, manifest = new_study(tmp_path / "b" / "study", images=3)
    with pytest.raises(RequestError, match="another study called study"):
        run_search(other, manifest, 2, storage=url)
    copy = OptunaCopy(other, manifest, url)
    with pytest.raises(RequestError, match="another study called study"):
        copy.rebuild(Ledger(other.ledger))
    assert len(stored(one, url)) == 2


@pytest.mark.parametrize("killed_at", ["set_user_attr", "set_metric_names"])
def test_a_study_of_which_a_kill_left_the_beginning_is_taken_up(
    folder: StudyFolder, tmp_path: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    url = f"sqlite:///{tmp_path}/elsewhere.db"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, killed_at, killed)
        follow(folder, url)
    follow(folder, url)
    assert stored(folder, url) == stored(folder)
    assert optuna.load_study(study_name=folder.name, storage=url).metric_names == ["chair_s", "f1"]


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql+nosuchdriver://me:secret@host/db", "sqlite:////no/such/folder/x.db"]
)
def test_a_storage_that_cannot_be_opened(tmp_path: Path, url: str) -> None:
    folder, manifest = new_study(tmp_path / "study", images=3)
    with pytest.raises(KvtuneError) as caught:
        run_search(folder, manifest, 2, storage=url)
    assert "storage" in str(caught.value) and "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
