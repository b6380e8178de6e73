"""What a search will cost, and a search that ends when its time is up."""

from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, new_study, run_search
from hypothesis import given
from hypothesis import strategies as st

from kvtune.errors import RequestError
from kvtune.search.budget import Deadline, cost, parse_duration
from kvtune.search.view import View
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("45s", 45), ("45", 45), ("1h30m", 5400), ("1.5h", 5400), ("1h2m3s", 3723)],
)
def test_times_as_they_are_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5m", "soon", "2d", "1m2h", "2 h", "h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(RequestError, match="--timeout takes a time like 2h, 90m, 1h30m or 45s"):
        parse_duration(text)


def test_a_deadline_comes() -> None:
    assert not Deadline().is_over() and not Deadline(3600).is_over() and Deadline(0).is_over()


def test_the_cost_in_words() -> None:
    assert cost(25_450, 96.4, 10, True) == (
        "at most 25,450 captions, 2.5 million tokens, 0:42:25 to go; racing spares a part"
    )
    assert cost(300, 70.0, 4, False) == "300 captions, 21,000 tokens, 0:01:15 to go"


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("race", [0.95, None])
def test_the_cost_is_told_once_after_the_first_block(tmp_path: Path, race: float | None) -> None:
    folder, manifest = new_study(tmp_path / "s", 60, parallel_trials=4, race=race)
    view = Notes()
    run_search(folder, manifest, 4, FakeCaptioner(in_flight=5), view=view)
    told = [note for note in view.notes if "captions" in note]
    assert len(told) == 1
    first = manifest.image_order[:20]
    lines = {line["image_id"]: line for line in _lines(folder, None)}
    tokens = sum(lines[image_id]["tokens"] for image_id in first) / 20
    start = f"after 20 captions: {'at most ' if race else ''}280 captions, {round(280 * tokens):,} tokens, 0:0"
    assert told[0].startswith(start), (told, start)
    assert told[0].endswith("to go; racing spares a part" if race else "to go")


def _lines(folder: StudyFolder, number: int | None) -> list[dict[str, Any]]:
    from kvtune.study.caption_log import read_captions

    return list(read_captions(folder.trial_captions(number)).values())


class After(Deadline):
    """Over when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def is_over(self) -> bool:
        self.times -= 1
        return self.times < 0


@given(st.data())
def test_the_end_of_time_in_units_of_looks_at_the_clock(data: st.DataObject) -> None:
    times = data.draw(st.integers(0, 20))
    deadline = After(times)
    assert [deadline.is_over() for _ in range(times)] == [False] * times and deadline.is_over()


@pytest.mark.parametrize("times", [0, 1, 7, 33, 64])
def test_a_search_whose_time_is_up_goes_on_as_if_nothing_had_been(tmp_path: Path, times: int) -> None:
    straight, manifest = new_study(tmp_path / "a" / "s", 20, "tpe")
    run_search(straight, manifest, 8)
    folder, manifest = new_study(tmp_path / "b" / "s", 20, "tpe")
    notes = []
    for pause in (times, times + 30, 10**9):
        view = Notes()
        run_search(folder, load_manifest(folder), 8, FakeCaptioner(3), view=view, deadline=After(pause))
        notes.append(view.notes[-1] if view.notes else "")
    assert notes[0].startswith("time is up after ") and "the same command goes on from here" in notes[0]
    assert not notes[2].startswith("time is up")
    assert Ledger(folder.ledger).trials == Ledger(straight.ledger).trials


def test_the_captions_of_a_search_whose_time_is_up_are_kept(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", 20)
    run_search(folder, manifest, 4, FakeCaptioner(3), deadline=After(12))
    kept = len(_lines(folder, None))
    assert 0 < kept < 20 and Ledger(folder.ledger).baseline.state == "running"
    captioner = run_search(folder, load_manifest(folder), 4, FakeCaptioner(3))
    assert sum(tag is None for tag, _ in captioner.asked) == 20 - kept
