"""How long captioning will take: the estimate beside the truth, by a clock that passes with the work."""

import bisect
from pathlib import Path
from typing import Any

import pytest
from fake_search import fake_images, new_study, run_search
from timed_captioner import Clock, Machine, TimedCaptioner

from kvtune.captioning.request import Work
from kvtune.search.view import View
from kvtune.study.captioning import caption_images
from kvtune.study.deadline import Deadline
from kvtune.study.pace import Pace
from kvtune.study.streams import Number, Stream
from kvtune.study.together import alone
from kvtune.study.trials import Ledger

pytestmark = pytest.mark.usefixtures("without_optuna")

Seen = list[tuple[float, float | None]]
"""(the time, the seconds left by the estimate)."""

CPU = Machine(step=0.0083, row=8.3e-5, image=8.3e-5, position=7e-7, rows=256, by_image=True)
"""As the demo on one core, but for a smaller grid."""

GPU = Machine(step=0.0063, row=2.3e-5, image=1.4e-4, position=4.3e-7, prompt=0.02, rows=256, mean=90)
"""As a model of 7B is calculated, but for a smaller grid."""

OTHER = Machine(step=0.004, row=2e-4, image=5e-4, position=2e-6, rows=100, by_image=True)
LAUNCHES = Machine(step=0.03, row=1e-5, image=1e-5, position=1e-8, rows=200)


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
        pace.ahead(images * sum(later), max([1, *later]), images)
        methods: dict[Number, Any] = dict.fromkeys(range(first, first + lanes))
        logs: Any = {setting: Log() for setting in methods}
        look = lambda: seen.append((clock(), pace.seconds_left()))  # noqa: E731
        alone(caption_images(Stream(captioner, fake_images(images), methods, logs, pace=pace, on_work=look)))
        first += lanes
    assert pace.seconds_left() == 0 and pace.there == images * sum(stages) == pace.total
    return seen, clock()


def error(seen: Seen, whole: float, share: float) -> float:
    """The error after a share of the whole time, as a share of the time that was left then."""
    now, left = seen[bisect.bisect_left(seen, share * whole, key=lambda each: each[0])]
    assert left is not None
    return left / (whole - now) - 1


def worst(seen: Seen, whole: float, begin: float = 0.1, end: float = 0.8) -> float:
    """The largest error between these shares of the whole time."""
    return max(abs(error(seen, whole, share / 100)) for share in range(round(100 * begin), round(100 * end) + 1))


VALIDATE, SENSITIVITY, REPRODUCE, RECORD = [12], [23], [10, 3, 1], [12, 12, 12]
"""Settings that a command captions together, stage after stage: with each, some images."""

kinds = pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
stages = pytest.mark.parametrize(
    "stages", [VALIDATE, SENSITIVITY, REPRODUCE, RECORD], ids=["validate", "sensitivity", "reproduce", "record"]
)


@kinds
@stages
def test_commands(machine: Machine, stages: list[int]) -> None:
    """Within 30 % from a tenth of the run on; captions of the study say how long those to come are."""
    seen, whole = estimates(machine, stages, 90, machine.mean)
    assert worst(seen, whole) < 0.3


@kinds
def test_a_baseline_and_rounds(machine: Machine) -> None:
    """A search without races; nobody has said how long captions are."""
    seen, whole = estimates(machine, [1, *[8] * 6], 90, 95)
    assert worst(seen, whole) < 0.3


@kinds
@pytest.mark.parametrize("factors", [(0.6, 1.6, 1.6, 0.6), (1.6, 0.6, 0.6, 1.6)], ids=["rows", "steps"])
@pytest.mark.parametrize(("mean", "spread"), [(40, 0.3), (120, 0.05)])
def test_machines_that_are_not_as_expected(
    machine: Machine, factors: tuple[float, ...], mean: float, spread: float
) -> None:
    """Each share of a step's time may be other than the engine reckons, and captions may vary more or less."""
    costs = (machine.step, machine.row, machine.image, machine.position)
    step, row, image, position = (factor * cost for factor, cost in zip(factors, costs, strict=True))
    machine = Machine(step, row, image, position, machine.prompt, 128, machine.by_image, mean, spread)
    seen, whole = estimates(machine, [12], 40, mean)
    assert worst(seen, whole, 0.15, 0.7) < 0.3


def test_captions_that_end_together() -> None:
    """All at once at the end; till then not one is there."""
    machine = Machine(spread=0.0, mean=60)
    seen, whole = estimates(machine, [8], 100, 60)
    assert worst(seen, whole, 0.15, 0.6) < 0.3


@pytest.mark.parametrize(("usual", "most"), [(67, 0.35), (95, 0.5)])
def test_one_caption_an_image(usual: float, most: float) -> None:
    """More images than rows, whose prompts are half of the work: known from the first ones on, before any step."""
    machine = Machine(0.0083, 8.3e-5, 8.3e-5, 7e-7, prompt=0.012, rows=256, by_image=True, mean=67, spread=0.2)
    seen, whole = estimates(machine, [1], 500, usual)
    assert worst(seen, whole, 0.02, 0.8) < most


def test_the_first_prompts_say_how_long_it_will_take() -> None:
    """But not the very first, nor the very first step: what is done but once is part of what they take."""
    clock = Clock(0.0)
    pace = Pace(50, clock)
    pace.begin(100, 1)
    clock.now += 20
    pace.work(Work(prompts=10, prompts_cost=1000.0, room=100, by_image=True))
    assert pace.seconds_left() is None
    clock.now += 2
    pace.work(Work(prompts=20, prompts_cost=2000.0, room=100, by_image=True))
    left = pace.seconds_left()
    assert left is not None and 80 * 0.2 < left < 80  # the other prompts, and the captions
    assert pace.words().endswith("to go")
    clock.now += 20
    pace.work(Work(prompts=20, prompts_cost=2000.0, tokens=20, in_flight=20, cost=100.0, room=100, by_image=True))
    after_one = pace.seconds_left()
    assert after_one is not None and after_one < 80
    clock.now += 0.1
    pace.work(Work(prompts=20, prompts_cost=2000.0, tokens=40, in_flight=40, cost=200.0, room=100, by_image=True))
    after_two = pace.seconds_left()
    assert after_two is not None and after_two < 40


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


@pytest.mark.parametrize("machine", [CPU, GPU, OTHER, LAUNCHES], ids=["cpu", "gpu", "other", "launches"])
def test_a_search_with_races(tmp_path: Path, machine: Machine) -> None:
    """What a raced trial spares is learned; from a tenth of the run on the estimate holds."""
    folder, manifest = new_study(tmp_path / "s", 60, parallel_trials=4, race=0.9)
    clock = Clock(0.0)
    view = Watch(clock)
    run_search(folder, manifest, 24, TimedCaptioner(machine, clock), view=view, deadline=Deadline(None, clock))
    assert sum(trial.state == "raced" for trial in Ledger(folder.ledger).trials) >= 3
    assert worst(view.seen, clock()) < 0.3


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
