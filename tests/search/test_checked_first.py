"""What cannot work is refused before anything is written."""

import json
import sqlite3
from pathlib import Path

import optuna
import pytest
from fake_search import new_study, run_search
from scored_studies import scored_study

from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.reproduce import Request, reproduce
from kvtune.study.rescore import rescore_study
from kvtune.study.storage_url import check_storage
from kvtune.text import sqlite_url


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock" and path.is_file()
    }


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return scored_study(tmp_path / "studies" / "s", images=6, trials=2).path


@pytest.mark.parametrize(
    "url",
    [
        "nonsense", "", "sqlite://", "sqlite:////no/such/folder/x.db", "nothing://x", "postgresql://u:SECRET@h:x/d",
        "sqlite:///{x}", "sqlite:////", "mysql+nothing://u:SECRET@h/d", "postgresql+nothing://h/d?password=SECRET",
        "x" * 5000,
    ],
    ids=lambda url: url[:30],
)  # fmt: skip
def test_a_storage_that_is_none(study: Path, url: str) -> None:
    from kvtune.study.study_folder import StudyFolder

    before = contents(study)
    with pytest.raises(RequestError) as error:
        rescore_study(StudyFolder(study), storage=url)
    assert str(error.value).startswith("--storage ") or "is a folder" in str(error.value)
    assert len(str(error.value)) < 300 and "SECRET" not in str(error.value)
    assert contents(study) == before


def test_a_file_that_is_no_database(study: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at" * 100)
    with pytest.raises(RequestError, match=r"cannot be opened: .*file is not a database"):
        check_storage(f"sqlite:///{tmp_path}/text.db", "s", None)


def test_a_storage_is_looked_at_without_being_made(tmp_path: Path) -> None:
    check_storage(sqlite_url(tmp_path / "new.db"), "s", None)
    sqlite3.connect(tmp_path / "empty.db").close()
    check_storage(sqlite_url(tmp_path / "empty.db"), "s", None)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} in ({"empty.db": 0}, {})


def test_a_name_that_the_storage_knows(tmp_path: Path) -> None:
    """Ours is known by the manifest's id; a study that holds nothing yet may be taken."""
    url = sqlite_url(tmp_path / "all ?%.db")
    folder, manifest = new_study(tmp_path / "a" / "s", images=4)
    run_search(folder, manifest, 2, storage=url)
    check_storage(url, "s", manifest.id)
    check_storage(url, "t", None)
    for study_id in (None, "another"):
        with pytest.raises(RequestError, match="holds another study called s; choose another --study name"):
            check_storage(url, "s", study_id)
    optuna.create_study(study_name="bare", storage=url)
    check_storage(url, "bare", None)
    optuna.load_study(study_name="bare", storage=url).enqueue_trial({})
    with pytest.raises(RequestError, match="holds another study called bare"):
        check_storage(url, "bare", None)
    other, _ = new_study(tmp_path / "b" / "s", images=4)
    before = contents(other.path)
    with pytest.raises(RequestError, match="holds another study called s"):
        rescore_study(other, storage=url)
    assert contents(other.path) == before


@pytest.mark.parametrize(
    "wrong",
    [
        ModelOptions("demo", dtype="x"),
        ModelOptions("demo", engine=EngineOptions(lanes="0")),
        ModelOptions("demo", engine=EngineOptions(device="x")),
        ModelOptions("demo", load_in_4bit=True, load_in_8bit=True),
        None,
    ],
)
def test_a_reproduction_that_cannot_begin(tmp_path: Path, wrong: ModelOptions | None) -> None:
    images, model = (0, ModelOptions("demo")) if wrong is None else (1, wrong)
    with pytest.raises(RequestError):
        list(reproduce(Request("table1", [model], images, out=tmp_path / "out"), None, None))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


REFUSED = [
    ["search", "--model", "demo", "--storage", "sqlite:///new.db", "--dtype", "x"],
    ["search", "--model", "demo", "--storage", "sqlite:///new.db", "--subset", "none"],
    ["search", "--model", "demo", "--storage", "sqlite:///no/such/folder/new.db"],
    ["reproduce", "table1", "--models", "demo", "--dtype", "x"],
    ["bench", "search", "--seeds", "100000000000"],
    ["bench", "search", "--seeds", "9" * 5000],
    ["search", "--model", "demo", "--trials", "9" * 5000],
    ["search", "--model", "demo", "--seed", "-1"],
]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words)[:60])
def test_nothing_is_left_behind(words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert err.count("\n") == 1 and len(err) < 600, err[:1000]
    assert list(tmp_path.iterdir()) == []


def test_a_study_in_a_storage_is_refused_with_nothing_written(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    url = sqlite_url(tmp_path / "all.db")
    optuna.create_study(study_name="taken", storage=url).enqueue_trial({"x": 1})
    with pytest.raises(SystemExit) as ended:
        main(["search", "--model", "demo", "--study", "taken", "--storage", url])
    assert ended.value.code == 2
    assert "holds another study called taken" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["all.db"]
    assert json.dumps([study.study_name for study in optuna.get_all_study_summaries(url)]) == '["taken"]'
