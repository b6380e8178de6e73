"""When the Optuna storage is told of what the ledger has."""

from types import SimpleNamespace

import pytest
from timed_captioner import Clock

from kvtune.errors import KvtuneError
from kvtune.search.optuna_follower import OPTUNA_SECONDS, OptunaFollower


class Told:
    """A storage that is level after so many trials."""

    is_local = True

    def __init__(self):
        self.left, self.asked = 0, []

    def follow(self, ledger):
        self.left = 0

    def update(self, ledger, most):
        self.asked.append(most)
        self.left -= self.left if most is None else min(most, self.left)
        return self.left == 0


def test_a_round_is_told_a_trial_a_call_and_nothing_after_it_for_a_while():
    """Steps go on between the calls."""
    clock, copy = Clock(), Told()
    follower = OptunaFollower(copy, SimpleNamespace(), clock, lambda text: None)
    follower.begin()
    copy.left = 3
    follower.tell()
    assert copy.asked == []
    clock.now += OPTUNA_SECONDS
    for _ in range(9):
        follower.tell()
        clock.now += 0.03
    assert copy.asked == [1, 1, 1] and not follower.is_behind
    copy.left = 3
    follower.tell(at_once=True)
    assert copy.asked[3:] == [None] and copy.left == 0


class Away(Told):
    """A storage whose server is away for a while."""

    is_local, away = False, False

    def follow(self, ledger):
        if self.away:
            raise KvtuneError("no server")
        super().follow(ledger)

    def update(self, ledger, most):
        if self.away:
            raise KvtuneError("no server")
        return super().update(ledger, most)


def test_a_storage_elsewhere_is_left_behind_until_it_is_back_and_said_once():
    clock, copy, said = Clock(), Away(), []
    follower = OptunaFollower(copy, SimpleNamespace(), clock, said.append)
    follower.begin()
    copy.left, copy.away = 3, True
    for _ in range(3):
        clock.now += OPTUNA_SECONDS
        follower.tell()
        assert follower.is_behind
    assert said == ["no server; the search goes on without it"]
    copy.away = False
    clock.now += OPTUNA_SECONDS
    follower.tell()
    assert copy.left == 0 and not follower.is_behind


def test_a_file_beside_the_study_that_cannot_be_written_ends_the_search():
    copy = Away()
    follower = OptunaFollower(copy, SimpleNamespace(), Clock(), lambda text: None)
    follower.begin()
    copy.is_local = copy.away = True
    with pytest.raises(KvtuneError, match="no server"):
        follower.tell(at_once=True)
