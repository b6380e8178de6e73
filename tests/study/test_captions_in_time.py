"""Captions that are to be whole before a deadline, by a clock that passes with the work."""

from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
from fake_search import fake_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timed_captioner import PROMPTS_TOGETHER, Clock, Machine, TimedCaptioner

from kvtune.study.caption_log import CaptionLog
from kvtune.study.captioning import caption_images
from kvtune.study.deadline import Deadline, Waves
from kvtune.study.streams import Number, Stream
from kvtune.study.together import alone

ROUNDS: tuple[tuple[Number, ...], ...] = ((None,), (0, 1, 2, 3), (4, 5, 6, 7))
_folders = count()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timed")


def caption(folder: Path, machine: Machine, seconds: float | None, images: int = 30) -> tuple[TimedCaptioner, float]:
    """Caption as a search does, round after round, for so long; the captioner, and the seconds that passed."""
    clock = Clock()
    captioner, begun, waves = TimedCaptioner(machine, clock), clock(), Waves(Deadline(seconds, clock))
    folder.mkdir(exist_ok=True)
    for numbers in ROUNDS:
        with ExitStack() as stack:
            logs = {n: stack.enter_context(closing(CaptionLog(folder / f"{n}.jsonl"))) for n in numbers}
            wanted = Stream(captioner, fake_images(images), dict.fromkeys(numbers), logs, waves=waves)
            alone(caption_images(wanted))
            if not all(len(log) == images for log in logs.values()):
                break
    return captioner, clock() - begun


def kept(folder: Path) -> set[tuple[Number, int]]:
    """(setting, image) of each caption that is kept."""
    found: set[tuple[Number, int]] = set()
    for number in (number for numbers in ROUNDS for number in numbers):
        with closing(CaptionLog(folder / f"{number}.jsonl")) as log:
            found |= {(number, image_id) for image_id in log.image_ids}
    return found


machines = st.builds(
    Machine,
    step=st.floats(1e-4, 0.05),
    row=st.floats(1e-6, 1e-3),
    image=st.floats(1e-6, 1e-3),
    prompt=st.floats(1e-4, 0.02),
    rows=st.sampled_from([16, 100, 1024]),
    mean=st.sampled_from([5.0, 20.0, 60.0]),
)
"""From nearly all costs a step's own to nearly all a caption's own."""


def longest_wait(machine: Machine) -> float:
    """Seconds between two looks at the clock at most."""
    return max(machine.step + machine.rows * (machine.row + machine.image), PROMPTS_TOGETHER * machine.prompt)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machine=machines, share=st.floats(0.0, 1.2))
def test_it_ends_in_time_and_what_is_begun_is_whole(root: Path, machine: Machine, share: float) -> None:
    whole = caption(root / str(next(_folders)), machine, None)[1]
    folder = root / str(next(_folders))
    captioner, seconds = caption(folder, machine, share * whole)
    assert seconds <= share * whole + longest_wait(machine)
    begun = set(captioner.asked)
    assert len(captioner.asked) == len(begun) and kept(folder) <= begun
    # No more than the first, which are begun before anything is known.
    assert len(begun - kept(folder)) <= 8
    again, _ = caption(folder, machine, None)
    assert len(kept(folder)) == 9 * 30
    assert len(captioner.asked) + len(again.asked) == 9 * 30 + len(begun.intersection(again.asked))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(machine=machines, factor=st.floats(1.0, 4.0), since=st.floats(0.0, 1.0))
def test_a_machine_that_becomes_slower_delays_no_end(root: Path, machine: Machine, factor: float, since: float) -> None:
    whole = caption(root / str(next(_folders)), machine, None)[1]
    began = Clock()()
    machine.load = lambda now: factor if now - began > since * whole else 1.0
    assert caption(root / str(next(_folders)), machine, whole / 2)[1] <= whole / 2 + factor * longest_wait(machine)


@pytest.mark.parametrize(("rows", "share"), [(16, 0.6), (16, 0.9), (1024, 0.9)])
def test_the_time_there_is_is_used(root: Path, rows: int, share: float) -> None:
    """Most of it, also where a whole round, nearly half of the work, would end too late."""
    machine = Machine(rows=rows)
    whole = caption(root / str(next(_folders)), machine, None, images=100)[1]
    folder = root / str(next(_folders))
    caption(folder, machine, share * whole, images=100)
    assert len(kept(folder)) / 900 > share * 0.45
