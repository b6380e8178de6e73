"""Which point of a front export takes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_studies import scores

from kvtune.analysis.selection import RULES, knee, select
from kvtune.analysis.summary import State, StudySummary, TrialSummary
from kvtune.errors import KvtuneError, RequestError
from kvtune.presets import SubsetInfo
from kvtune.statistics.front import front


def trial(number: int | None, chair_s: float | None, f1: float | None, state: State = "complete") -> TrialSummary:
    found = None if chair_s is None or f1 is None else scores(chair_s, f1, 100)
    return TrialSummary(number, {}, found, 100, state)


def study(*points: tuple[float, float], baseline: tuple[float, float] | None = (50.0, 60.0)) -> StudySummary:
    return StudySummary(
        study="s",
        model="m",
        method="kvsmooth",
        subset=SubsetInfo(name="s", sha256="", images=100),
        baseline=trial(None, *baseline) if baseline else None,
        trials=[trial(number, *point) for number, point in enumerate(points)],
        front=front(points),
        hypervolume=None,
        reference_point=None,
    )


def chosen(summary: StudySummary, rule: str = "keep-f1") -> int | None:
    return select(summary, rule).trial.number


def test_lowest_hallucination_that_keeps_the_baselines_f1() -> None:
    summary = study((30.0, 59.9), (40.0, 60.0), (35.0, 61.0), (45.0, 70.0))
    selection = select(summary)
    assert selection.trial.number == 2
    assert selection.rule == "lowest CHAIR_S whose F1 is at least the baseline's"
    assert selection.on == "tune"


def test_f1_equal_to_the_baselines_is_kept() -> None:
    assert chosen(study((30.0, 60.0), (40.0, 65.0))) == 0


def test_level_trials_go_by_the_other_objective_then_by_number() -> None:
    assert chosen(study((30.0, 61.0), (30.0, 62.0), (30.0, 62.0))) == 1
    assert chosen(study((30.0, 61.0), (30.0, 62.0), (30.0, 62.0)), "min-chair") == 1
    assert chosen(study((35.0, 62.0), (30.0, 62.0), (30.0, 62.0)), "max-f1") == 1


def test_a_worse_chair_than_the_baseline_is_still_the_lowest_that_keeps_f1() -> None:
    assert chosen(study((55.0, 61.0), (30.0, 50.0))) == 0


def test_none_keeps_f1() -> None:
    with pytest.raises(KvtuneError) as caught:
        select(study((30.0, 50.0), (45.0, 59.5), (40.0, 59.5)))
    assert caught.value.exit_code == 1
    assert "no trial of s keeps the baseline's F1 of 60.00" in str(caught.value)
    assert "closest is trial 2 (CHAIR_S 40.00, F1 59.50): --select trial:2 takes it" in str(caught.value)
    assert chosen(study((30.0, 50.0), (45.0, 59.5), (40.0, 59.5)), "trial:2") == 2


def test_the_baseline_is_needed_for_that_rule_alone() -> None:
    summary = study((30.0, 61.0), (20.0, 55.0), baseline=None)
    with pytest.raises(KvtuneError, match="no baseline"):
        select(summary)
    assert chosen(summary, "min-chair") == 1
    assert chosen(summary, "max-f1") == 0


def test_only_complete_trials_are_chosen() -> None:
    summary = study((40.0, 61.0))
    others = [trial(1, 10.0, 90.0, "raced"), trial(2, None, None, "failed"), trial(3, None, None, "running")]
    summary.trials.extend(others)
    for rule in ("keep-f1", "knee", "min-chair", "max-f1"):
        assert chosen(summary, rule) == 0
    for number in (1, 2, 3):
        with pytest.raises(RequestError, match=f"trial {number} of s is {others[number - 1].state}"):
            select(summary, f"trial:{number}")


def test_nothing_to_choose_from() -> None:
    for rule in ("keep-f1", "knee", "min-chair"):
        with pytest.raises(KvtuneError, match="no complete trial"):
            select(study(), rule)
    with pytest.raises(RequestError, match="none yet"):
        select(study(), "trial:0")


@pytest.mark.parametrize("rule", ["", "best", "trial", "KNEE"])
def test_unknown_rules_list_those_there_are(rule: str) -> None:
    with pytest.raises(RequestError) as caught:
        select(study((30.0, 61.0)), rule)
    assert all(name in str(caught.value) for name in RULES)


@pytest.mark.parametrize("rule", ["trial:7", "trial:-1", "trial:x", "trial:"])
def test_unknown_trials(rule: str) -> None:
    with pytest.raises(RequestError, match="has no trial"):
        select(study((30.0, 61.0)), rule)


def test_the_knee_is_farthest_from_the_chord() -> None:
    # Ends (20, 50) and (40, 70). Scaled: (0.25, 0.75) is 0.35 above the chord, (0.5, 0.9) is 0.28 above it.
    assert chosen(study((40.0, 70.0), (20.0, 50.0), (25.0, 65.0), (30.0, 68.0), (60.0, 60.0)), "knee") == 2


def test_the_knee_does_not_depend_on_units() -> None:
    points = [(20.0, 50.0), (25.0, 60.0), (30.0, 68.0), (40.0, 70.0)]
    stretched = [(3 * x + 1, 0.1 * y + 40) for x, y in points]
    assert knee(points) == knee(stretched)


@pytest.mark.parametrize("points", [[(20.0, 50.0)], [(20.0, 50.0), (40.0, 70.0)], [(20.0, 50.0), (20.0, 50.0)]])
def test_a_front_without_a_middle_has_its_knee_at_the_lowest_chair(points: list[tuple[float, float]]) -> None:
    assert knee(points) == 0


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=20))
def test_the_knee_is_the_maximum_of_the_distance_to_a_line(points: list[tuple[int, int]]) -> None:
    members = [tuple(map(float, points[index])) for index in front([(float(x), float(y)) for x, y in points])]
    (x0, y0), (x1, y1) = members[0], members[-1]
    found = knee([(x, y) for x, y in members])

    def distance(point: tuple[float, ...]) -> float:
        if x1 == x0 or y1 == y0:
            return 0.0
        px, py = (point[0] - x0) / (x1 - x0), (point[1] - y0) / (y1 - y0)
        foot = (px + py) / 2  # nearest point on the chord y = x
        return math.hypot(px - foot, py - foot)

    assert distance(members[found]) == pytest.approx(max(distance(point) for point in members))
