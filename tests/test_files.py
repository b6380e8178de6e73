"""Files are whole or not there, whoever is killed when; what killed processes leave goes."""

import errno
import fcntl
import multiprocessing
import os
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvtune import files
from kvtune.errors import KvtuneError, RequestError
from kvtune.files import check_path, check_writable, new_folder, remove_leftovers, replacing, write_bytes, write_text
from kvtune.locks import locked_file
from kvtune.study.lock import locked


def killed(function, *arguments):
    """Run a function in a process of its own that is killed before it ends."""

    def run():
        function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def half(path):
    """Write half a file, and wait for the end."""
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def half_a_folder(path):
    with new_folder(path) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["study.json", "x" * 255, "猫" * 80, ".hidden", "a b[c]*.json"])
def test_what_killed_writers_left_is_taken_by_the_next(tmp_path, name):
    path = tmp_path / name
    write_text(path, "old")
    for _ in range(5):
        killed(half, path)
    assert len(names(tmp_path)) == 2 and path.read_text() == "old"
    write_text(path, "new")
    assert names(tmp_path) == [name] and path.read_text() == "new"


def test_the_next_that_holds_the_folder_removes_it(tmp_path):
    study = tmp_path / "study"
    for name in ("study.json", "report/trials.csv", "presets/p.json"):
        killed(half, study / name)
    write_text(study / "captions" / "baseline.jsonl", "kept")
    (study / ".mine.tmp").write_text("kept")
    with locked(study):
        left = [str(path.relative_to(study)) for path in sorted(study.rglob("*")) if path.is_file()]
    assert left == [".lock", ".mine.tmp", "captions/baseline.jsonl"]


def test_what_a_live_writer_holds_stays(tmp_path):
    with replacing(tmp_path / "file") as file:
        file.write(b"whole")
        remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 1
    assert (tmp_path / "file").read_bytes() == b"whole" and names(tmp_path) == ["file"]


def test_many_writers_of_one_file(tmp_path):
    """While others remove leftovers: each file that is seen is one writer's."""
    path, seen, written = tmp_path / "file", set(), []
    done = threading.Event()

    def write(number):
        for _ in range(50):
            write_bytes(path, bytes([number]) * 4096)
        written.append(number)

    def disturb():
        while not done.is_set():
            remove_leftovers(tmp_path)
            if path.exists():
                seen.add(path.read_bytes())

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    others = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in [*others, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert sorted(written) == list(range(8))
    assert seen and all(len(data) == 4096 and len(set(data)) == 1 for data in seen)
    assert names(tmp_path) == ["file"]


def test_folders_too(tmp_path):
    for _ in range(3):
        killed(half_a_folder, tmp_path / "scenes")
    assert len(names(tmp_path)) == 1
    with new_folder(tmp_path / "scenes") as folder:
        assert names(folder) == []
        (folder / "c").write_text("whole")
    assert names(tmp_path) == ["scenes"] and names(tmp_path / "scenes") == ["c"]
    with new_folder(tmp_path / "scenes"):
        pass
    assert names(tmp_path) == ["scenes"]
    with pytest.raises(ValueError), new_folder(tmp_path / "other") as folder:
        (folder / "d").write_text("half")
        raise ValueError
    assert names(tmp_path) == ["scenes"]


def test_an_error_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(KvtuneError, match=r"cannot write .*file: No space left on device; free some space"):
        write_text(tmp_path / "file", "text")
    assert names(tmp_path) == []
    with pytest.raises(KeyError), replacing(tmp_path / "file"):
        raise KeyError
    assert names(tmp_path) == []


def test_modes_are_those_of_any_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "text")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_lock_alone_leaves_no_folder(tmp_path):
    new = tmp_path / "a" / "b" / "study"
    with pytest.raises(ValueError), locked(new):
        assert new.is_dir()
        raise ValueError
    assert names(tmp_path) == []
    with locked(new):
        (new / "study.json").write_text("{}")
    assert names(new) == [".lock", "study.json"]
    with locked(new):
        pass
    assert names(new) == [".lock", "study.json"]


def test_a_lock_that_was_removed_is_made_anew(tmp_path):
    path = tmp_path / ".lock"
    first = locked_file(path)
    with pytest.raises(BlockingIOError):
        locked_file(path)
    path.unlink()
    second = locked_file(path)
    assert os.path.samestat(os.fstat(second), path.stat())
    os.close(first), os.close(second)
    with path.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("name", ["x" * 256, "猫" * 86, "a/" * 2100, "un\udcffdecodable", f"ok/{'y' * 300}/ok"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(RequestError) as error:
        check_path(name)
    assert len(str(error.value)) < 200


def test_names_that_files_can_have(tmp_path):
    for name in ("x" * 255, "猫" * 85, "a b", "?%[red]"):
        assert check_path(tmp_path / name) == tmp_path / name
    assert check_path("~/x") == Path.home() / "x"
    assert check_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "folder" / "file")
    check_writable(tmp_path / "file")
    for bad in (tmp_path, tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(RequestError):
            check_writable(bad)
    assert names(tmp_path) == ["file"]
    assert files.__doc__


def test_a_pipe_is_written_to_and_stays(tmp_path):
    """As /dev/stdout and /dev/null must, in whose place an administrator's rename would put a file."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        check_writable(path)
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(path.read_bytes)
            write_text(path, "whole")
            assert read.result() == b"whole"
        assert stat.S_ISFIFO(path.stat().st_mode)
    assert link.is_symlink() and names(tmp_path) == ["link", "pipe"]


def test_a_pipe_gets_nothing_of_what_failed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "pipe") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["pipe"]
