"""Searches that end when their time is up, by a clock that passes with the work."""

from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, new_study, run_search
from timed_captioner import Clock, Machine, TimedCaptioner

from kvtune.search.view import View
from kvtune.study.caption_log import read_captions
from kvtune.study.deadline import Deadline
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger

pytestmark = pytest.mark.usefixtures("without_optuna")


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def captions(folder: StudyFolder) -> set[tuple[int | None, int]]:
    """(trial, image) of each caption that is kept."""
    numbers = [None, *range(len(Ledger(folder.ledger).trials))]
    return {(number, image) for number in numbers for image in read_captions(folder.trial_captions(number))}


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_a_search_whose_time_is_up_goes_on_as_if_nothing_had_been(tmp_path: Path, seconds: float) -> None:
    straight, _ = new_study(tmp_path / "a" / "s", 20, "tpe")
    run_search(straight, load_manifest(straight), 8, TimedCaptioner(Machine(), Clock()))
    folder, _ = new_study(tmp_path / "b" / "s", 20, "tpe")
    notes, asked = [], []
    for pause in (seconds, seconds + 1, 1e9):
        view, clock = Notes(), Clock()
        captioner = TimedCaptioner(Machine(), clock)
        run_search(folder, load_manifest(folder), 8, captioner, view=view, deadline=Deadline(pause, clock))
        notes.append(view.notes[-1] if view.notes else "")
        asked += captioner.asked
    assert notes[0].startswith("time is up after ") and "the same command goes on from here" in notes[0]
    assert not notes[2].startswith("time is up")
    assert Ledger(folder.ledger).trials == Ledger(straight.ledger).trials
    assert len(captions(folder)) == 9 * 20
    # All that is asked twice was in flight when the time was up.
    assert len(asked) - len(set(asked)) <= 8


def test_without_time_nothing_is_asked(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", 20)
    captioner = run_search(folder, manifest, 4, FakeCaptioner(3), deadline=Deadline(0))
    assert captioner.asked == [] and Ledger(folder.ledger).trials == []


class Failing(TimedCaptioner):
    """Fails where a round is captioned together."""

    def run(self, requests: Any, on_work: Any = lambda work: None) -> Any:
        requests = list(requests)
        if len({request.tag for request in requests}) > 1:
            raise ValueError("too many")
        return super().run(requests, on_work)


def test_trials_that_go_one_by_one_end_in_time_too(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", 20)
    clock = Clock()
    captioner = Failing(Machine(), clock)
    run_search(folder, manifest, 4, captioner, deadline=Deadline(4, clock))
    assert clock() <= 1004.2 and 20 < len(captions(folder)) < 100
    run_search(folder, load_manifest(folder), 4, Failing(Machine(), Clock()))
    assert len(captions(folder)) == 100 and Ledger(folder.ledger).finished == 4
