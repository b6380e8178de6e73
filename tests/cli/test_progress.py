"""Progress of long steps where there is no terminal."""

from types import SimpleNamespace

import pytest

from kvtune.cli import progress as module
from kvtune.cli.progress import progress


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_time_left_is_that_of_what_this_run_does(clock, capsys):
    with progress("captions") as show:
        clock.now += 60  # a model is loaded
        show(900, 1000)
        for done in range(901, 921):
            clock.now += 1
            show(done, 1000)
        clock.now += 1
        show(1000, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "captions: 900 of 1000",
        "captions: 910 of 1000, 90 s left",
        "captions: 920 of 1000, 80 s left",
        "captions: 1000 of 1000",
    ]


def test_bytes_and_an_unknown_total(clock, capsys):
    with progress("archive", in_bytes=True) as show:
        show(0, 0)
        clock.now += 30
        show(60_000_000, 240_000_000)
    assert capsys.readouterr().err.splitlines() == ["archive: 0 MB", "archive: 60 of 240 MB, 90 s left"]
