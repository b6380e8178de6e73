"""The rule that stops trials: how often it errs, counted out or simulated, and that it stops what is clearly beaten."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvtune.chair import COLUMNS, rates
from kvtune.statistics.racing import RACE_COLUMNS, Race, race_counts

Counts = NDArray[np.int64]


def captions(draw: np.random.Generator, present: Counts, hallucinating: float, seeing: float) -> Counts:
    """Counts of one setting: ``hallucinating`` is the mean number of false categories, ``seeing`` the recall."""
    correct = draw.binomial(present, seeing)
    false = draw.poisson(hallucinating * draw.gamma(2.0, 0.5, len(present)))
    return np.stack([false > 0, correct, correct + false, present], axis=1).astype(np.int64)


def chair_s(counts: Counts) -> float:
    return float(counts[:, 0].mean())


def f1(counts: Counts) -> float:
    return 2 * counts[:, 1].sum() / (counts[:, 2].sum() + counts[:, 3].sum())


def stopped_at(race: Race, trial: Counts, members: Counts, order: NDArray[np.int64]) -> int | None:
    """The look at which a trial is stopped when its images come in this order."""
    for look in race.looks:
        if race.dominator(trial[order], members[:, order], look) is not None:
            return look
    return None


def share_stopped(race: Race, trial: Counts, members: Counts, orders: int, seed: int = 0) -> float:
    draw = np.random.default_rng(seed)
    found = [stopped_at(race, trial, members, draw.permutation(race.images)) for _ in range(orders)]
    return sum(look is not None for look in found) / orders


def with_false(counts: Counts, wanted: int, draw: np.random.Generator) -> Counts:
    """The same captions with false categories put in or taken out until ``wanted`` captions hallucinate."""
    changed = counts.copy()
    false = changed[:, 2] - changed[:, 1]
    surplus = int((false > 0).sum()) - wanted
    at = np.flatnonzero(false > 0) if surplus > 0 else np.flatnonzero(false == 0)
    for index in draw.permutation(at)[: abs(surplus)]:
        false[index] = 0 if surplus > 0 else 1
    changed[:, 0], changed[:, 2] = false > 0, changed[:, 1] + false
    return changed


def test_looks_are_at_tenths_of_the_images_if_these_are_enough() -> None:
    assert Race.of(500).looks == (50, 100, 150, 200, 250, 300, 350, 400, 450)
    assert Race.of(100).looks == (20, 40, 60, 80)
    assert Race.of(1234).looks[:2] == (124, 248) and len(Race.of(1234).looks) == 9
    assert Race.of(20).looks == Race.of(3).looks == ()


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, not 1"):
        Race.of(100, 1)
    with pytest.raises(ValueError, match="looks must rise between 0 and 100"):
        Race(100, 0.95, (50, 100))
    with pytest.raises(ValueError, match="30 images are not one of the looks"):
        Race.of(100).dominator(np.zeros((100, 4)), np.zeros((1, 100, 4)), 30)
    with pytest.raises(ValueError, match="are not of 20 of 100 images"):
        Race.of(100).dominator(np.zeros((19, 4)), np.zeros((1, 100, 4)), 20)


def test_what_z_must_exceed_is_shared_among_looks_and_the_two_ways_to_err() -> None:
    """Tests in sequence spend a level once however many members there are; a trial between two is tested by both."""
    race = Race(100, 0.9, (20, 40, 60, 80))
    assert NormalDist().cdf(race.critical(1)) == pytest.approx(1 - 0.1 / 4)
    for members in (2, 3, 50):
        assert NormalDist().cdf(race.critical(members)) == pytest.approx(1 - 0.1 / 8)


def test_race_counts_are_columns_of_the_scorers_table() -> None:
    table = np.arange(3 * len(COLUMNS)).reshape(3, len(COLUMNS))
    assert race_counts(table).tolist() == [
        [row[COLUMNS.index(name)] for name in RACE_COLUMNS] for row in table.tolist()
    ]


def counted_size(images: int, n: int, differing: int, level: float) -> float:
    """The chance that a tie in CHAIR_S, with this many images that differ, is called worse after ``n`` images.

    Every outcome is counted: b and c images of those that speak against and for the trial among the first n.
    """
    against = differing // 2
    for_it = differing - against
    critical = NormalDist().inv_cdf(1 - level)
    total, found = math.comb(images, n), 0
    for b in range(min(against, n) + 1):
        for c in range(min(for_it, n - b) + 1):
            if (b - c - 1) / math.sqrt((1 - n / images) * (b + c + 1)) > critical:
                rest = math.comb(images - differing, n - b - c)
                found += math.comb(against, b) * math.comb(for_it, c) * rest
    return found / total


@pytest.mark.parametrize("level", [0.05, 0.05 / 9, 0.025 / 9, 0.01 / 9, 0.005 / 9])
@pytest.mark.parametrize("images", [40, 80])
def test_the_test_of_chair_s_errs_less_than_its_level(images: int, level: float) -> None:
    for n in {images // 10, images // 3, images // 2, (9 * images) // 10}:
        for differing in range(2, images + 1, 8):
            assert counted_size(images, n, differing, level) <= level


def test_the_statistic_of_chair_s_is_the_counted_one() -> None:
    """What was counted out above is what the race computes; F1 is made hopeless so that CHAIR_S alone decides."""
    race = Race(120, 0.9, (40, 80))
    critical = NormalDist().inv_cdf(1 - 0.1 / 2)
    draw = np.random.default_rng(5)
    decisions = set()
    for _ in range(300):
        member = np.stack([draw.random(120) < 0.4, np.full(120, 3), np.full(120, 3), np.full(120, 3)], axis=1).astype(
            int
        )
        trial = np.stack([draw.random(120) < 0.55, np.zeros(120), np.full(120, 1), np.full(120, 3)], axis=1).astype(int)
        difference = trial[:40, 0] - member[:40, 0]
        b, c = int((difference > 0).sum()), int((difference < 0).sum())
        expected = (b - c - 1) / math.sqrt((1 - 40 / 120) * (b + c + 1)) > critical
        assert (race.dominator(trial, member[None], 40) == 0) == expected
        decisions.add(expected)
    assert decisions == {True, False}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_the_sum_that_is_tested_says_which_f1_is_lower(seed: int, images: int) -> None:
    """Over all images, sum(g) and F1 - f have opposite signs, exactly; no approximation is hidden in the ratio."""
    draw = np.random.default_rng(seed)
    present = draw.integers(0, 6, images)
    trial, member = captions(draw, present, 0.5, 0.6), captions(draw, present, 0.5, 0.6)
    top, bottom = 2 * member[:, 1].sum(), member[:, 2].sum() + member[:, 3].sum()
    if bottom == 0 or trial[:, 2].sum() + trial[:, 3].sum() == 0:
        return
    against = top * (trial[:, 2] - member[:, 2]).sum() - bottom * 2 * (trial[:, 1] - member[:, 1]).sum()
    f1_trial = rates(_table(trial).sum(axis=0))["f1"] / 100
    assert np.sign(against) == np.sign(round(top / bottom - float(f1_trial), 12))


def _table(counts: Counts) -> Counts:
    table = np.zeros((len(counts), len(COLUMNS)), dtype=np.int64)
    for index, name in enumerate(RACE_COLUMNS):
        table[:, COLUMNS.index(name)] = counts[:, index]
    return table


@pytest.fixture(scope="module")
def pool() -> tuple[Counts, Counts]:
    """What is in 200 images, and three members: few and many false categories, low and high F1."""
    draw = np.random.default_rng(1)
    present = 1 + draw.poisson(2.5, 200)
    members = [captions(draw, present, *setting) for setting in ((0.15, 0.5), (0.4, 0.65), (0.9, 0.8))]
    members.sort(key=chair_s)
    assert f1(members[0]) < f1(members[1]) < f1(members[2])
    return present, np.stack(members)


@pytest.mark.parametrize("tied_with", [0, 1, 2])
def test_a_trial_tied_in_chair_s_is_hardly_ever_stopped(pool: tuple[Counts, Counts], tied_with: int) -> None:
    """Only CHAIR_S keeps it from being dominated; its F1 is hopeless. The worst case for the test of CHAIR_S."""
    present, members = pool
    draw = np.random.default_rng(2)
    wanted = int(members[tied_with][:, 0].sum())
    trial = with_false(captions(draw, present, 0.6, 0.1), wanted, draw)
    assert chair_s(trial) == chair_s(members[tied_with]) and f1(trial) < f1(members[0]) - 0.1
    # Cheaper members do dominate: those are taken away, or stopping would be right.
    assert share_stopped(Race.of(200), trial, members[tied_with:], 400) < 0.05


@pytest.mark.parametrize("tied_with", [0, 1, 2])
def test_a_trial_that_just_keeps_f1_is_hardly_ever_stopped(pool: tuple[Counts, Counts], tied_with: int) -> None:
    """Every caption hallucinates; only F1, a hair above the member's, keeps it from being dominated."""
    present, members = pool
    draw = np.random.default_rng(3)
    trial = captions(draw, present, 1.0, f1(members[tied_with]) + 0.1)
    trial[:, 2] = np.maximum(trial[:, 2], trial[:, 1] + 1)
    trial[:, 0] = 1
    while f1(trial) <= f1(members[tied_with]):
        index = draw.choice(np.flatnonzero(trial[:, 1] < present))
        trial[index, 1:3] += 1
    while f1(trial) > f1(members[tied_with]):
        last = trial.copy()
        trial[draw.integers(200), 2] += 1
    assert f1(members[tied_with]) < f1(last) < f1(members[tied_with]) + 0.002
    assert share_stopped(Race.of(200), last, members[: tied_with + 1], 400) < 0.05


def test_a_trial_between_two_members_is_hardly_ever_stopped(pool: tuple[Counts, Counts]) -> None:
    """Level with one member in CHAIR_S and with the next in F1: both sequences can err, each at a member of its own."""
    _, members = pool
    low, high = members[1], members[2]
    draw = np.random.default_rng(4)
    trial = with_false(low, int(high[:, 0].sum()), draw)  # CHAIR_S of the one with more
    while f1(trial) < f1(low):
        index = draw.choice(np.flatnonzero(trial[:, 1] < trial[:, 3]))
        trial[index, 1:3] += 1
    assert chair_s(trial) == chair_s(high) and f1(low) <= f1(trial) < f1(low) + 0.005
    share = share_stopped(Race.of(200), trial, members, 400)
    assert share < 0.05


def test_a_copy_of_a_member_is_never_stopped(pool: tuple[Counts, Counts]) -> None:
    _, members = pool
    for member in members:
        assert share_stopped(Race.of(200), member, members, 100) == 0


def test_a_clearly_dominated_trial_is_stopped_early(pool: tuple[Counts, Counts]) -> None:
    present, members = pool
    draw = np.random.default_rng(6)
    trial = captions(draw, present, 0.9, 0.45)
    assert chair_s(trial) > chair_s(members[1]) + 0.2 and f1(trial) < f1(members[1]) - 0.15
    orders = [draw.permutation(200) for _ in range(100)]
    looks = [stopped_at(Race.of(200), trial, members, order) for order in orders]
    assert all(look is not None for look in looks)
    assert np.median([look for look in looks if look]) <= 60


def test_more_confidence_stops_later(pool: tuple[Counts, Counts]) -> None:
    present, members = pool
    draw = np.random.default_rng(7)
    trial = captions(draw, present, 0.6, 0.55)
    shares = [share_stopped(Race.of(200, confidence), trial, members, 100) for confidence in (0.5, 0.95, 0.999)]
    assert shares[0] > shares[1] > shares[2]


def test_several_trials_at_once_are_the_same_as_one_by_one(pool: tuple[Counts, Counts]) -> None:
    present, members = pool
    draw = np.random.default_rng(8)
    race = Race.of(200)
    trials = np.stack([captions(draw, present, *setting) for setting in ((0.9, 0.3), (0.1, 0.9), (0.6, 0.5))])
    together = race.dominators(trials, members, 100)
    alone = [race.dominator(trial, members, 100) for trial in trials]
    assert [None if index < 0 else index for index in together.tolist()] == alone
    assert alone[0] is not None and alone[1] is None


def test_without_members_nobody_is_stopped() -> None:
    assert Race.of(100).dominators(np.zeros((2, 20, 4)), np.zeros((0, 100, 4)), 20).tolist() == [-1, -1]


def test_only_the_first_images_of_a_trial_count(pool: tuple[Counts, Counts]) -> None:
    present, members = pool
    race = Race.of(200)
    trial = captions(np.random.default_rng(9), present, 0.9, 0.3)
    other = trial.copy()
    other[60:] = 0
    for look in (20, 40, 60):
        assert race.dominator(trial, members, look) == race.dominator(other, members, look)
