"""Progress of long steps, with and without a terminal."""

import io
import sys
from types import SimpleNamespace

import pytest

from kvtune.cli import progress as module
from kvtune.cli.progress import captions_progress, progress
from kvtune.console import PlainConsole
from kvtune.study.pace import Pace


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


def test_bars_of_other_libraries_move_until_captions_are_written(monkeypatch):
    """A display that takes what they write to stderr would print each of their steps as a line."""
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(module, "err", lambda: console)
    before = sys.stderr
    with progress("images checked") as show:
        show(1, 2)
        assert sys.stderr is before
    with captions_progress("captions") as follow:
        assert sys.stderr is before
        follow(Pace())
        assert sys.stderr is not before
    assert sys.stderr is before
