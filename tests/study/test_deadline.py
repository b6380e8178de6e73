"""The moment at which a command has to end, and how much is begun before it."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lost_errors import WHERE_IT_IS_LOST
from timed_captioner import Clock

from kvtune.errors import RequestError
from kvtune.study.deadline import Deadline, TimeIsUp, Waves, parse_duration


def test_a_deadline_comes() -> None:
    clock = Clock()
    deadline = Deadline(60, clock)
    clock.now += 59
    assert deadline.left == 1 and not deadline.is_over() and not Deadline(None, clock).is_over()
    deadline.check()
    clock.now += 1
    assert deadline.is_over()
    with pytest.raises(TimeIsUp):
        deadline.check()


@pytest.mark.parametrize("seconds", [0.05, 0.0])
def test_what_does_not_look_at_the_clock_is_ended_all_the_same(seconds: float) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeIsUp), Deadline(seconds).enforced():
        while True:
            try:
                time.sleep(10)
            except Exception:
                raise AssertionError("no error that somebody may catch") from None
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_ends_before_is_let_alone() -> None:
    with Deadline(3600).enforced():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3500
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with Deadline().enforced():
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_iterator_is_ended_wherever_it_is_and_gives_what_it_has() -> None:
    def items() -> Iterator[int]:
        yield 1
        try:
            time.sleep(10)
        except BaseException:
            yield 2
            yield 3
            raise
        yield 4

    found = []
    with pytest.raises(TimeIsUp):
        for item in Deadline(0.2).until(items()):
            found.append(item)
    assert found == [1, 2, 3] and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert list(Deadline().until(iter([1, 2]))) == list(Deadline(60).until(iter([1, 2]))) == [1, 2]


@pytest.mark.parametrize("where", WHERE_IT_IS_LOST)
def test_what_python_would_print_of_it_is_not_printed(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It comes again."""
    before = sys.unraisablehook, sys.excepthook
    with pytest.raises(TimeIsUp), Deadline(0.05).enforced():
        WHERE_IT_IS_LOST[where](lambda: time.sleep(0.2))
        time.sleep(5)
    assert capfd.readouterr() == ("", "")
    assert (sys.unraisablehook, sys.excepthook) == before


def test_an_import_is_not_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_in_time.py").write_text(
        "import time\nfor _ in range(30):\n    time.sleep(0.01)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TimeIsUp), Deadline(0.1).enforced():
        import imported_in_time  # type: ignore[import-not-found]
    assert imported_in_time.whole


def test_without_a_deadline_all_captions_are_begun_at_once() -> None:
    assert Waves(Deadline()).size() is None


def test_waves_take_half_the_time_that_is_left() -> None:
    clock = Clock()
    waves = Waves(Deadline(100, clock))
    assert waves.size() == 8
    clock.now += 4
    waves.ended(8)
    assert waves.size() == 96  # 48 of the 96 s that are left, at 2 captions a second
    clock.now += 16  # more captions at once are quicker
    waves.ended(96)
    assert waves.size() == 8 + 88 * 3  # 40 of 80 s, on a line through 8 in 4 s and 96 in 16 s
    clock.now += 60
    waves.ended(272)
    assert waves.size() == 8 + int(264 * 6 / 56)  # 10 of 20 s
    clock.now += 15.5
    assert waves.size() == 0  # 4.5 s: 8 captions take 4, which is more than four fifths


def test_no_wave_is_so_large_that_it_may_end_too_late() -> None:
    """However quick a larger one was in comparison: there may be no room for more side by side."""
    clock = Clock()
    waves = Waves(Deadline(100, clock))
    for captions in (8, 100):
        waves.size()
        clock.now += 10
        waves.ended(captions)
    assert waves.size() == 640  # 80 s, four fifths of which are 64 s; 100 took 10


@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_comes_while_it_is_put_off_leaves_no_alarm(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, late = signal.getsignal(signal.SIGALRM), signal.setitimer, [True]

    def setitimer(which: int, seconds: float, interval: float = 0.0) -> object:
        comes = seconds == 0 and late and late.pop()
        if comes and moment == "before":
            signal.raise_signal(signal.SIGALRM)
        result = real(which, seconds, interval)
        if comes and moment == "after":
            signal.raise_signal(signal.SIGALRM)
        return result

    monkeypatch.setattr(signal, "setitimer", setitimer)
    with pytest.raises(TimeIsUp), Deadline(60).enforced():
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("45s", 45), (" 1h30m ", 5400), ("1.5h", 5400), ("1h2m3s", 3723)],
)
def test_times_as_they_are_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "0m", "-5m", "soon", "2d", "1m2h", "2 h", "h", "1h30", "²s", "٣s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(RequestError, match="--timeout takes a time like 2h, 90m, 1h30m or 45s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["45", "0", "1.5"])
def test_a_number_needs_a_unit(text: str) -> None:
    with pytest.raises(RequestError, match=f"--timeout {text} has no unit; write {text}s, {text}m or {text}h"):
        parse_duration(text)
