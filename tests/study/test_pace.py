"""How long captioning will take: the estimate beside the truth, by a clock that passes with the work."""

from pathlib import Path
from typing import Any

import pytest
from fake_search import fake_images, new_study, run_search
from hypothesis import given, settings
from hypothesis import strategies as st
from timed_captioner import Clock, Machine, TimedCaptioner

from kvtune.captioning.request import Work
from kvtune.search.view import View
from kvtune.study.captioning import caption_images
from kvtune.study.deadline import Deadline
from kvtune.study.pace import Pace
from kvtune.study.streams import Number, alone
from kvtune.study.trials import Ledger

Seen = list[tuple[float, float | None]]
"""(the time, the seconds left by the estimate)."""


class Log(dict[int, int]):
    """A caption log in memory."""

    def append(self, image_id: int, caption: str, tokens: int, finish_reason: str) -> None:
        self[image_id] = tokens


def estimates(machine: Machine, stages: list[int], images: int, usual: float) -> tuple[Seen, float]:
    """Caption some images with so many settings, stage after stage; the estimates, and the seconds that it took."""
    clock = Clock(0.0)
    pace, captioner = Pace(usual, clock), TimedCaptioner(machine, clock)
    seen: Seen = []
    first = 0
    for number, lanes in enumerate(stages):
        later = stages[number + 1 :]
        pace.later, pace.later_lanes = images * sum(later), max([1, *later])
        methods: dict[Number, Any] = dict.fromkeys(range(first, first + lanes))
        logs: Any = {setting: Log() for setting in methods}
        alone(
            caption_images(
                captioner,
                fake_images(images),
                methods,
                logs,
                lambda setting: None,
                pace=pace,
                on_work=lambda: seen.append((clock(), pace.seconds_left())),
            )
        )
        first += lanes
    assert pace.seconds_left() == 0 and pace.there == images * sum(stages) == pace.total
    return seen, clock()


def worst(seen: Seen, whole: float, begin: float = 0.1, end: float = 0.9) -> float:
    """The largest error between these shares of the whole time, as a share of the time that was left then.

    As long as prompts are run and not one token is written, nothing is estimated.
    """
    known = [(now, left) for now, left in seen if left is not None and begin * whole <= now <= end * whole]
    return max(abs(left / (whole - now) - 1) for now, left in known)


machines = st.builds(
    Machine,
    step=st.floats(0.001, 0.02),
    row=st.floats(1e-4, 5e-4),
    image=st.floats(0, 5e-4),
    prompt=st.floats(1e-4, 0.01),
    rows=st.sampled_from([50, 300, 1024]),
    mean=st.floats(40, 120),
    spread=st.floats(0.1, 0.25),
)


@settings(max_examples=15, deadline=None)
@given(machine=machines, lanes=st.sampled_from([5, 12, 40]))
def test_settings_in_one_stream(machine: Machine, lanes: int) -> None:
    """As validate and sensitivity have them; captions of the study say how long theirs will be."""
    seen, whole = estimates(machine, [lanes], 60, machine.mean)
    assert worst(seen, whole, 0.1, 0.6) < 0.3
    assert worst(seen, whole, 0.6, 0.85) < 0.7  # a moment is much of what is left


@settings(max_examples=15, deadline=None)
@given(machine=machines, rounds=st.integers(6, 12))
def test_a_baseline_and_rounds(machine: Machine, rounds: int) -> None:
    """A search without races; the baseline says how long captions are, and rounds how quick they go."""
    seen, whole = estimates(machine, [1, *[8] * rounds], 60, 95)
    assert worst(seen, whole, 0.2, 0.8) < 0.3


def test_captions_that_end_together() -> None:
    """All at once at the end; till then not one is there."""
    machine = Machine(spread=0.0, mean=60)
    seen, whole = estimates(machine, [8], 100, 60)
    assert worst(seen, whole, 0.1, 0.6) < 0.3


def test_a_machine_that_becomes_busy() -> None:
    """The estimate follows what is seen of late."""
    machine = Machine(load=lambda now: 3.0 if now > 20 else 1.0)
    seen, whole = estimates(machine, [1, *[8] * 16], 100, 64)
    slow = [abs(left / (whole - now) - 1) for now, left in seen if left and 60 < now < 0.8 * whole]
    assert slow and max(slow) < 0.3


def test_nothing_is_known_at_first() -> None:
    clock = Clock(0.0)
    pace = Pace(clock=clock)
    assert pace.seconds_left() is None
    pace.begin(10, 1)
    assert pace.seconds_left() is None and pace.share == 0.0 and pace.words() == "" and pace.total == 10


class Watch(View):
    """Notes the estimates of a search."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seen: Seen = []

    def showing(self, manifest: Any, ledger: Any, captions: int, pace: Pace) -> Any:
        self.pace = pace
        return super().showing(manifest, ledger, captions, pace)

    def worked(self) -> None:
        self.seen.append((self.clock(), self.pace.seconds_left()))


@pytest.mark.parametrize(
    "machine", [Machine(), Machine(step=0.03, row=1e-5, rows=200), Machine(rows=64, prompt=0.05)], ids=["a", "b", "c"]
)
def test_a_search_with_races(tmp_path: Path, machine: Machine) -> None:
    """What a raced trial spares is learned; from a tenth of the run on the estimate holds."""
    folder, manifest = new_study(tmp_path / "s", 60, parallel_trials=4, race=0.9)
    clock = Clock(0.0)
    view = Watch(clock)
    run_search(folder, manifest, 24, TimedCaptioner(machine, clock), view=view, deadline=Deadline(None, clock))
    assert sum(trial.state == "raced" for trial in Ledger(folder.ledger).trials) >= 3
    assert worst(view.seen, clock(), 0.1, 0.8) < 0.3


def test_many_workers_tell_in_one_of_what_all_of_them_did() -> None:
    """Half a second at a time, prompts and steps of eight workers together; they write 400 captions at once."""
    clock = Clock(0.0)
    pace = Pace(100, clock)
    pace.begin(4000, 8)
    prompts = tokens = 0
    for _ in range(60):
        clock.now += 0.5
        prompts, tokens = prompts + 4, tokens + 2500
        pace.work(Work(prompts, tokens, 400 * 50, 400, "8 workers (8 x H100)"))
        for _ in range(25):
            pace.caption(100)
    assert pace.tokens_a_second == pytest.approx(5000)
    left = pace.seconds_left()
    assert left is not None and left == pytest.approx((4000 - 1500 - 200) * 100 / 5000, rel=0.1)
    assert pace.words().endswith("to go, 8 workers (8 x H100)")
