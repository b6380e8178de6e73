"""Downloads from a server that drops, truncates, is busy or gone."""

import contextlib
import email.utils
import errno
import http.client
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
LIMIT = 1_000_000
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture
def server():
    with running_server() as server:
        server.files["/file"] = CONTENT
        yield server


def fetch(server, check=lambda data: None, patience=QUICK):
    return fetch_bytes(f"{server.url}/file", patience, check, Event(), LIMIT)


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
        fetch_bytes(f"{url}/file", QUICK, lambda data: None, Event(), LIMIT)


def test_stop_ends_the_waiting(server):
    server.faults["/file"] = [503] * 100
    stop = Event()
    stop.set()
    with pytest.raises(FetchError, match="stopped"):
        fetch_bytes(f"{server.url}/file", Patience(delay=60), lambda data: None, stop, LIMIT)


def test_large_file(server, tmp_path):
    seen = []
    path = tmp_path / "new" / "file"
    fetch_file(f"{server.url}/file", path, QUICK, LIMIT, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert sorted(path.parent.iterdir()) == [path]


def test_resumes_where_it_was_cut(server, tmp_path):
    """Each attempt brings half of the rest, so more faults than attempts are survived, and no byte comes twice."""
    server.faults["/file"] = ["truncate", "drop", "truncate", 503, "hang", "drop", "truncate", 503]
    fetch_file(f"{server.url}/file", tmp_path / "file", IMPATIENT, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests["/file"] == 9
    assert server.sent["/file"] == len(CONTENT)


def test_goes_on_with_a_part_left_by_a_killed_download(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent["/file"] == len(CONTENT) - 100_000
    assert not (tmp_path / "file.part").exists()


def test_part_that_is_whole_already(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.sent["/file"] == 0


def test_part_of_something_longer(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_ignores_ranges(server, tmp_path):
    server.ranges = False
    server.faults["/file"] = ["truncate"]
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_ignores_ranges_and_always_truncates_is_given_up(server, tmp_path):
    server.ranges = False
    server.faults["/file"] = ["truncate"] * 100
    with pytest.raises(FetchError, match="truncated: 150000 of 300000"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert server.requests["/file"] <= 4
    assert not (tmp_path / "file").exists()


def test_failed_download_keeps_what_came(server, tmp_path):
    server.faults["/file"] = ["truncate", 503, 503, 503]
    with pytest.raises(FetchError, match=r"503 .*\(3 attempts\)"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:150_000]
    assert not (tmp_path / "file").exists()


def test_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match=r"cannot write .*choose another folder"):
        fetch_file(f"{server.url}/file", tmp_path / "file" / "archive", QUICK, LIMIT)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(KvtuneError, match="No space left on device; free some space"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert not (tmp_path / "file").exists()


SLOW = Patience(attempts=2, delay=0.01, timeout=0.3)


@pytest.mark.parametrize("drip", ["body", "headers"])
def test_a_server_that_drips_is_given_up(server, tmp_path, drip):
    """However long it would go on, and however many bytes each attempt brings."""
    server.drips["/file"] = drip
    said = "too slow" if drip == "body" else "begins too slowly"
    with pytest.raises(FetchError, match=said) as error:
        fetch(server, patience=SLOW)
    assert not error.value.final
    with pytest.raises(FetchError, match=said):
        fetch_file(f"{server.url}/file", tmp_path / "file", SLOW, LIMIT)
    assert server.requests["/file"] == 4
    assert not (tmp_path / "file").exists()


def test_who_reads_late_is_told_of_the_cut_and_not_of_the_reset_after_it(server, monkeypatch):
    server.drips["/file"] = "headers"
    read = http.client.HTTPConnection.getresponse

    def late(connection):
        with contextlib.suppress(OSError, http.client.HTTPException):
            read(connection)
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", late)
    with pytest.raises(FetchError, match="begins too slowly"):
        fetch(server, patience=SLOW)


@pytest.mark.parametrize("said", [True, False], ids=["length", "no length"])
def test_more_than_a_file_can_have_is_not_taken(server, tmp_path, said):
    """Whether the server says how much is to come or not."""
    server.files["/file"] = CONTENT
    server.lengths = said
    with pytest.raises(FetchError, match="more than 0 MiB, which no such file has") as error:
        fetch_bytes(f"{server.url}/file", QUICK, lambda data: None, Event(), 100_000)
    assert error.value.final
    with pytest.raises(FetchError, match="more than 0 MiB"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, 100_000)
    assert list(tmp_path.iterdir()) == []
    assert server.requests["/file"] == 2


def test_a_part_counts_towards_the_limit(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:250_000])
    with pytest.raises(FetchError, match="more than"):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, 260_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["-5", "abc", "\xb2", "1e3", "9" * 5000, "", "0x10", "300000, 300000", " "])
def test_a_length_that_is_none_is_not_believed(server, tmp_path, length):
    server.raw["/file"] = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1") + CONTENT
    assert fetch(server) == CONTENT
    fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert (tmp_path / "file").read_bytes() == CONTENT


DATES = ["Mon, 99 Foo 99999", "Thu, 01 Jan 0001 00:00:00", "Fri, 31 Dec 9999 23:59:59 -9999"]
DATES += ["\xb2", "9" * 5000, "-1", ""]


@pytest.mark.parametrize("value", DATES)
def test_when_to_come_again_may_be_nonsense(server, value):
    answer = f"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: {value}\r\n\r\n"
    server.raw["/file"] = answer.encode("latin-1")
    with pytest.raises(FetchError, match="503 Busy"):
        fetch(server, patience=Patience(attempts=2, delay=0.01, longest=0.05, timeout=5))


PLACES = (
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "http://[::1",
    "http://127.0.0.1:99999/",
    "//\xe9.\xff/",
    "data:,x",
)


@pytest.mark.parametrize(
    "answer",
    [f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n" for place in PLACES]
    + [
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 99999 \r\n\r\n",
        "no HTTP",
        "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 500 + "\r\n",
        "HTTP/1.1 200 OK\r\nX: " + "y" * 100_000 + "\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        "HTTP/1.1 404 \x1b[31m" + "long " * 5000 + "\r\n\r\n",
        "",
    ],
    ids=lambda answer: answer[:60].encode().hex()[:24],
)
def test_whatever_a_server_answers_is_an_error_of_ours(server, tmp_path, answer):
    server.raw["/file"] = answer.encode("latin-1")
    with pytest.raises(FetchError) as error:
        fetch(server)
    assert len(str(error.value)) < 500
    with pytest.raises(FetchError):
        fetch_file(f"{server.url}/file", tmp_path / "file", QUICK, LIMIT)
    assert not (tmp_path / "file").exists()
