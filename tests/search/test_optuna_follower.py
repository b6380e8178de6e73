"""When the Optuna storage is told of what the ledger has."""

from types import SimpleNamespace

from timed_captioner import Clock

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
