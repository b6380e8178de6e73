"""Studies that are deleted or renamed."""

from pathlib import Path

import optuna
import pytest
from fake_search import new_study, run_search

from kvtune.analysis.summarize import summarize
from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.study.lock import locked
from kvtune.study.manage import delete_study, rename_study
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.text import sqlite_url


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made, manifest = new_study(tmp_path / "studies" / "one", images=5)
    run_search(made, manifest, 4)
    return made


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_a_renamed_study_is_the_same_and_goes_on(folder: StudyFolder) -> None:
    before = summarize(folder).trials
    assert run("studies", "rename", "one", "two", "--studies-dir", str(folder.path.parent)) == 0
    new = StudyFolder(folder.path.with_name("two"))
    assert not folder.path.exists() and summarize(new).trials == before
    assert [study.study_name for study in optuna.get_all_study_summaries(sqlite_url(new.database))] == ["two"]
    run_search(new, load_manifest(new), 6)
    assert len(optuna.load_study(study_name="two", storage=sqlite_url(new.database)).trials) == 6


@pytest.mark.parametrize("name", ["../x", "", "a b", "taken"])
def test_a_name_that_cannot_be(folder: StudyFolder, name: str) -> None:
    folder.path.with_name("taken").mkdir()
    with pytest.raises(RequestError):
        rename_study(folder, name)
    assert folder.exists() and folder.database.exists()


def test_deleting_wants_a_yes(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    studies = ["--studies-dir", str(folder.path.parent)]
    assert run("studies", "delete", "one", *studies) == 2
    assert "give --yes" in capsys.readouterr().err and folder.exists()
    assert run("studies", "delete", "one", "--yes", *studies) == 0
    assert list(folder.path.parent.iterdir()) == []
    assert run("studies", *studies) == 0


def test_a_question_is_asked_at_a_terminal(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in (False, True):
        monkeypatch.setattr("typer.confirm", lambda text, err, answer=answer: asked.append(text) or answer)
        assert run("studies", "delete", str(folder.path)) == (0 if answer else 1)
        assert folder.exists() == (not answer)
    assert "25 captions" in asked[0]


def test_a_study_in_use_stays(folder: StudyFolder) -> None:
    with locked(folder.path):
        for change in (delete_study, lambda study: rename_study(study, "two")):
            with pytest.raises(RequestError, match="in use"):
                change(folder)
    assert folder.exists()
