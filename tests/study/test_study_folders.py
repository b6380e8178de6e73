"""Study names, finding studies, and the lock."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Literal

import pytest

from kvtune.errors import KvtuneError, RequestError
from kvtune.study.lock import in_use, locked
from kvtune.study.study_folder import StudyFolder, check_name, default_name, find_study, study_folders


def make(path: Path, changed: float = 0) -> Path:
    path.mkdir(parents=True)
    (path / "study.json").write_text("{}")
    if changed:
        os.utime(path / "study.json", (changed, changed))
    return path


@pytest.mark.parametrize("name", ["a", "demo-kvsmooth", "A.b_c-1", "7b", "x" * 100])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


BAD = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "~x", ".hidden", "-x", "a b", "a\n", "x" * 101, "é", "a.", "a\0b"]


@pytest.mark.parametrize("name", BAD)
def test_names_with_a_path_or_odd_characters_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="cannot be a study's name"):
        check_name(name)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("demo", "demo-kvsmooth"),
        ("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b-hf-kvsmooth"),
        ("/data/models/My Model/", "My-Model-kvsmooth"),
        ("../..", "kvsmooth"),
        (".hidden", "hidden-kvsmooth"),
    ],
)
def test_default_names(model: str, name: str) -> None:
    assert default_name(model, "kvsmooth") == name


def test_a_study_is_found_by_name_path_or_as_the_latest(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    old, new = make(studies / "old", 1000), make(studies / "new", 2000)
    (studies / "not-a-study").mkdir()
    assert find_study("old", studies).path == old
    assert find_study(None, studies).path == new
    assert find_study(str(old), tmp_path / "elsewhere").path == old
    assert find_study(old, tmp_path / "elsewhere").name == "old"
    assert [folder.name for folder in study_folders(studies)] == ["new", "old"]


def test_a_study_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path / "studies" / "here"))
    assert find_study(".", tmp_path / "none").name == "here"


def test_unknown_studies_list_those_there_are(tmp_path: Path) -> None:
    make(tmp_path / "one")
    with pytest.raises(RequestError, match=r"no study 'two'; in .* there are: one"):
        find_study("two", tmp_path)
    with pytest.raises(RequestError, match=r"no study 'on', did you mean 'one'\? in "):
        find_study("on", tmp_path)
    with pytest.raises(RequestError, match=r"no study '\.\./one'"):
        find_study("../one", tmp_path)
    with pytest.raises(RequestError, match="kvtune search"):
        find_study(None, tmp_path / "nothing")


def test_captions_have_their_places(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    assert folder.trial_captions(None).relative_to(tmp_path) == Path("captions/baseline.jsonl")
    assert folder.trial_captions(7).relative_to(tmp_path) == Path("captions/trial-0007.jsonl")


def hold(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        ready.set()
        time.sleep(60)


def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "study", ready))
    process.start()
    assert ready.wait(30)
    assert in_use(tmp_path / "study")
    with pytest.raises(RequestError, match=f"study is in use by process {process.pid}"), locked(tmp_path / "study"):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not in_use(tmp_path / "study") and not in_use(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with locked(tmp_path / "study"):
        assert in_use(tmp_path / "study")
    with locked(tmp_path / "study"):
        pass


@pytest.mark.parametrize(("what", "option"), [("study", "--studies-dir"), ("reproduction", "--out folder")])
def test_a_folder_that_cannot_be_made(tmp_path: Path, what: Literal["study", "reproduction"], option: str) -> None:
    (tmp_path / "file").write_text("")
    refused = pytest.raises(KvtuneError, match=f"cannot write in .* choose another {option}")
    with refused, locked(tmp_path / "file" / "study", what):
        pass
