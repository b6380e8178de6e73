"""What is shown on a terminal while a search runs."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from fake_search import FakeRequest, new_study, run_search
from rich.console import Console

from kvtune.analysis.summarize import summarize
from kvtune.report.terminal import live
from kvtune.report.terminal.live import LiveView, view_for
from kvtune.search.view import PlainView
from kvtune.study.pace import Pace
from kvtune.study.trials import Ledger


@pytest.fixture(autouse=True)
def quick_searches(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))


def terminal(width=120, height=70):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def last_frame(used):
    return used.file.getvalue().rsplit("kvsmooth on fake", 1)[1]


def test_the_console_decides():
    assert isinstance(view_for(terminal()), LiveView)
    assert isinstance(view_for(Console(file=io.StringIO())), PlainView)


def test_the_display_has_progress_picture_front_baseline_and_the_latest_trials(tmp_path):
    folder, manifest = new_study(tmp_path / "s", images=5)
    used = terminal()
    run_search(folder, manifest, 6, view=LiveView(used))
    summary = summarize(folder)
    last = last_frame(used)
    assert "35/35" in last and "trials finished: 6" in last
    assert "F1 %" in last and "■ baseline" in last and f"● front ({len(summary.front)})" in last
    table = last[last.index("CHAIR_S ↓") :]
    for trial in [summary.baseline, *summary.trials]:
        label = "baseline" if trial.number is None else str(trial.number)
        (row,) = re.findall(rf"^. +{label}\b.*$", table, re.MULTILINE)
        assert ("front" in row) == (trial.number in summary.front) and ("published" in row) == trial.published
        scores = [f"{value:.1f}" for value in (trial.rate("chair_s"), trial.rate("f1"), trial.rate("mean_words"))]
        assert [word for word in row.split() if word in scores][-1] == scores[-1] and set(scores) <= set(row.split())


def test_what_is_in_work_says_what_its_numbers_are(tmp_path):
    folder, manifest = new_study(tmp_path / "s", images=5)
    used = terminal()
    view = LiveView(used)
    with view.showing(manifest, Ledger(folder.ledger), 15, Pace()):
        for number in (None, 0, 1):
            view.started(number, 0)
        view.caption(None)
        view.caption(0)
    assert "trials finished: 0   in work (captions of 5): baseline: 1, trial 0: 1, trial 1: 0" in last_frame(used)


def test_long_lists_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "FRONT_ROWS", 1)
    folder, manifest = new_study(tmp_path / "s", images=20)
    used = terminal()
    run_search(folder, manifest, 16, view=LiveView(used))
    front = summarize(folder).front
    assert len(front) > 1
    last = last_frame(used)
    assert f"and {len(front) - 1} more on the front" in last
    assert f"and {16 - len(front) - live.LATEST_ROWS} trials before" in last


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("height", [24, 50])
def test_a_low_terminal_has_no_picture_and_nothing_is_wider_than_the_terminal(tmp_path, width, height):
    folder, manifest = new_study(tmp_path / "s", images=5)
    used = terminal(width, height)
    run_search(folder, manifest, 6, view=LiveView(used))
    last = re.sub(r"\x1b\[[\d;?]*\w", "", last_frame(used))
    assert ("F1 %" in last) == (height == 50)
    assert max(map(len, last.replace("\r", "\n").split("\n"))) <= width


def test_images_being_checked():
    used = terminal()
    with LiveView(used).making_ready() as show:
        show("loading demo", 0, 0)
        for done in range(1, 8):
            show("images checked", done, 7)
    assert "images checked 7/7" in used.file.getvalue()
