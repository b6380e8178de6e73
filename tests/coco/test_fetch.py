"""Downloads from a server that drops, truncates, is busy or gone."""

import email.utils
import os
import random
import time
from threading import Event

import pytest
from bad_server import running_server

from kvtune.coco.fetch import FetchError, Patience, fetch_bytes, fetch_file
from kvtune.errors import KvtuneError

QUICK = Patience(attempts=3, delay=0.01, timeout=5)
IMPATIENT = Patience(attempts=3, delay=0.01, timeout=1.5)
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture
def server():
    with running_server() as server:
        server.files["/file"] = CONTENT
        yield server


def fetch(server, check=lambda data: None, patience=QUICK):
    return fetch_bytes(f"{server.url}/file", patience, check, Event())


@pytest.mark.parametrize("fault", ["drop", "truncate", 503, 500, 502, 504, 429, 408])
def test_transient_faults_are_tried_again(server, fault):
    server.faults["/file"] = [fault, fault]
    assert fetch(server) == CONTENT
    assert server.requests["/file"] == 3


def test_silence_is_a_fault(server):
    server.faults["/file"] = ["hang"]
    assert fetch(server, patience=IMPATIENT) == CONTENT


@pytest.mark.parametrize("fault", ["drop", "truncate", 503])
def test_and_given_up_in_the_end(server, fault):
    server.faults["/file"] = [fault] * 3
    with pytest.raises(FetchError, match=r"http://127.*/file: .* \(3 attempts\)") as error:
        fetch(server)
    assert not error.value.final
    assert server.requests["/file"] == 3


@pytest.mark.parametrize("fault", [404, 403, 410])
def test_final_answers_are_not_asked_for_again(server, fault):
    server.faults["/file"] = [fault]
    with pytest.raises(FetchError, match=rf"/file: {fault} ") as error:
        fetch(server)
    assert error.value.final
    assert server.requests["/file"] == 1


def test_content_that_is_wrong_is_a_failed_attempt(server):
    server.faults["/file"] = ["page"]
    assert fetch(server, check=lambda data: None if data == CONTENT else "not the file") == CONTENT
    server.faults["/file"] = ["page"] * 3
    with pytest.raises(FetchError, match="not the file"):
        fetch(server, check=lambda data: None if data == CONTENT else "not the file")


def test_waits_are_doubled(server):
    server.faults["/file"] = [503, 503, 503]
    fetch(server, patience=Patience(attempts=4, delay=0.1))
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert [gap > expected for gap, expected in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_honoured(server, value):
    server.retry_after = email.utils.formatdate(time.time() + 2, usegmt=True) if value == "date" else value
    server.faults["/file"] = [503]
    fetch(server)
    assert server.times[1] - server.times[0] > 0.9


def test_retry_after_has_a_limit_and_may_be_nonsense(server):
    for value in ("86400", "soon"):
        server.retry_after = value
        server.faults["/file"] = [429]
        fetch(server, patience=Patience(attempts=2, delay=0.01, longest=0.1))
    assert server.times[-1] - server.times[0] < 30


def test_nobody_listens():
    with running_server() as server:
        url = server.url
    with pytest.raises(FetchError, match="Connection refused"):
        fetch_bytes(f"{url}/file", QUICK, lambda data: None, Event())


def test_stop_ends_the_waiting(server):
    server.faults["/file"] = [503] * 100
    stop = Event()
    stop.set()
    with pytest.raises(FetchError, match="stopped"):
        fetch_bytes(f"{server.url}/file", Patience(delay=60), lambda data: None, stop)


def test_large_file(server, tmp_path):
    seen = []
    path = tmp_path / "new" / "file"
    fetch_file(f"{server.url}/file", path, QUICK, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(path.parent.iterdir()) == [path]


def test_resumes_where_it_was_cut(server, tmp_path):
    """Each attempt brings half of the rest, so more faults than attempts are survived, and no byte comes twice."""
    server.faults["/file"] = ["truncate", "drop", "truncate", 503, "hang", "drop", "truncate", 503]
    fetch_file(f"{server.url}/file", tmp_path / "file", IMPATIENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests["/file"] == 9
    assert server.sent["/file"] == len(CONTENT)


def test_goes_on_with_a_part_left_by_a_killed_download(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent["/file"] == len(CONTENT) - 100_000
    assert not (tmp_path / "file.part").exists()


def test_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent["/file"] == 0


def test_part_of_something_longer(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_ignores_ranges(server, tmp_path):
    server.ranges = False
    server.faults["/file"] = ["truncate"]
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_ignores_ranges_and_always_truncates_is_given_up(server, tmp_path):
    server.ranges = False
    server.faults["/file"] = ["truncate"] * 100
    with pytest.raises(FetchError, match="truncated: 150000 of 300000"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert server.requests["/file"] <= 4
    assert not (tmp_path / "file").exists()


def test_failed_download_keeps_what_came(server, tmp_path):
    server.faults["/file"] = ["truncate", 503, 503, 503]
    with pytest.raises(FetchError, match=r"503 .*\(3 attempts\)"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:150_000]
    assert not (tmp_path / "file").exists()


def test_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match=r"cannot write .*choose another folder"):
        fetch_file(f"{server.url}/file", tmp_path / "file" / "archive", QUICK)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(KvtuneError, match="No space left on device; free some space"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK)
    assert not (tmp_path / "file").exists()
