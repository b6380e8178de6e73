"""When a worker that shows no work is taken to hang."""

from kvtune.captioning.cluster.hang_watch import HangWatch


def test_a_worker_hangs_that_is_silent_for_much_longer_than_any_was_before():
    watch = HangWatch(first=900, least=30, times=20)
    for worker in "ab":
        watch.busy(worker, 0)
    assert watch.hung(899) == []
    assert watch.hung(901) == ["a", "b"]
    for worker in "ab":
        watch.worked(worker, 100)
    watch.worked("a", 105)  # five seconds are what a step takes here
    assert watch.allowed("b") == 100
    assert watch.hung(199) == []
    assert watch.hung(201) == ["b"]


def test_what_is_always_allowed_is_allowed_to_the_quickest():
    watch = HangWatch(first=900, least=30, times=20)
    watch.busy("a", 0)
    for tenth in range(1, 50):
        watch.worked("a", tenth / 10)
    assert watch.hung(34) == []
    assert watch.hung(36) == ["a"]


def test_a_worker_without_work_does_not_hang_and_a_new_one_may_build_kernels_first():
    watch = HangWatch(first=900, least=30, times=20)
    watch.busy("a", 0)
    watch.worked("a", 1)
    watch.idle("a")
    assert watch.hung(1e6) == []
    watch.busy("a", 1e6)
    watch.busy("a", 1e6 + 20)  # more work: the silence goes on
    assert watch.hung(1e6 + 31) == ["a"]
    watch.forget("a")
    watch.busy("b", 1e6)
    assert watch.hung(1e6 + 31) == []
