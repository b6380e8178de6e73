"""The scheduler against what anyone may expect of it, for any sequence of arrivals, ends and withdrawals."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.captioning.scheduler import Scheduler

events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
        st.tuples(st.just("withdraw"), st.integers(0, 60)),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(events=events, groups=st.integers(1, 4), lanes=st.integers(1, 4))
def test_every_request_runs_once_beside_its_own_image(events, groups, lanes):
    scheduler = Scheduler(groups, lanes)
    key_of, started, ended, withdrawn = {}, set(), set(), set()
    loaded = {}

    def place():
        loads, starts = scheduler.place()
        for group in loads:
            loaded[group] = scheduler.groups[group].key
        for placement in starts:
            assert placement.request not in started | withdrawn
            started.add(placement.request)
            assert loaded[placement.group] == key_of[placement.request]
        running = {placement.request for placement in scheduler.running}
        assert running == started - ended - withdrawn
        # A lane stands idle only if nobody waits for its group's image, and a group only if nobody waits at all.
        waiting = set(key_of) - started - withdrawn
        assert scheduler.waiting == len(waiting)
        for group in scheduler.groups:
            if group.is_idle:
                assert not waiting
            elif None in group.lanes:
                assert not any(key_of[request] == group.key for request in waiting)

    for number, (event, value) in enumerate(events):
        if event == "add":
            key_of[number] = value
            scheduler.add(value, number)
        elif event == "finish" and scheduler.running:
            placement = scheduler.running[value % len(scheduler.running)]
            ended.add(placement.request)
            scheduler.finish(placement.group, placement.lane)
        elif event == "withdraw" and value in key_of and value not in ended:
            withdrawn.add(value)
            scheduler.withdraw(lambda request, value=value: request == value)
        place()
    while scheduler.running:
        placement = scheduler.running[0]
        ended.add(placement.request)
        scheduler.finish(placement.group, placement.lane)
        place()
    assert ended == set(key_of) - withdrawn
    assert not scheduler.is_busy


def test_a_free_group_takes_a_second_copy_of_an_image_that_many_wait_for():
    scheduler = Scheduler(2, 2)
    for number in range(4):
        scheduler.add("one", number)
    loads, starts = scheduler.place()
    assert loads == [0, 1]
    assert [(p.group, p.lane) for p in starts] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_image_still_on_the_grid_is_not_loaded_again():
    scheduler = Scheduler(1, 1)
    scheduler.add("one", 0)
    assert scheduler.place()[0] == [0]
    scheduler.finish(0, 0)
    scheduler.add("one", 1)
    assert scheduler.place()[0] == []


def test_a_smaller_grid_takes_over_everything_what_ran_first():
    scheduler = Scheduler(2, 2)
    for number in range(6):
        scheduler.add(number % 3, number)
    scheduler.place()
    smaller = scheduler.resized(1, 2)
    assert smaller.waiting == 6
    assert [p.request for p in smaller.place()[1]] == [0, 3]
