"""The scheduler against what anyone may expect of it, for any sequence of arrivals, ends and withdrawals."""

from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.captioning.scheduler import Scheduler, packing

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
        assert scheduler.is_busy == bool(set(key_of) - withdrawn - ended)
        looked = scheduler.has_room
        loads, starts = scheduler.place()
        assert looked or not starts  # who spares the look misses nothing
        for group in loads:
            assert loads[group] == scheduler.groups[group].key
            loaded[group] = loads[group]
        for placement in starts:
            assert placement.request not in started | withdrawn
            started.add(placement.request)
            assert loaded[placement.image] == key_of[placement.request]
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
            scheduler.finish(placement.row)
        elif event == "withdraw" and value in key_of and value not in ended:
            withdrawn.add(value)
            scheduler.withdraw(lambda request, value=value: request == value)
        place()
    while scheduler.running:
        placement = scheduler.running[0]
        ended.add(placement.request)
        scheduler.finish(placement.row)
        place()
    assert ended == set(key_of) - withdrawn
    assert not scheduler.is_busy


def test_a_free_group_takes_a_second_copy_of_an_image_that_many_wait_for():
    scheduler = Scheduler(2, 2)
    for number in range(4):
        scheduler.add("one", number)
    loads, starts = scheduler.place()
    assert loads == {0: "one", 1: "one"}
    assert [(p.image, p.row) for p in starts] == [(0, 0), (0, 1), (1, 2), (1, 3)]


def test_an_image_still_on_the_grid_is_not_loaded_again():
    scheduler = Scheduler(1, 1)
    scheduler.add("one", 0)
    assert scheduler.place()[0] == {0: "one"}
    scheduler.finish(0)
    scheduler.add("one", 1)
    assert scheduler.place()[0] == {}


def test_a_smaller_grid_takes_over_everything_what_ran_first():
    scheduler = Scheduler(2, 2)
    for number in range(6):
        scheduler.add(number % 3, number)
    scheduler.place()
    smaller = Scheduler(1, 2)
    for key, request in scheduler.requests():
        smaller.add(key, request)
    assert smaller.waiting == 6
    assert [p.request for p in smaller.place()[1]] == [0, 3]


@settings(max_examples=200, deadline=None)
@given(left=st.lists(st.integers(1, 9), min_size=1, max_size=8), lanes=st.integers(1, 9), spare=st.integers(0, 12))
def test_what_is_left_is_packed_in_few_rows_whole_and_in_order(left, lanes, spare):
    left = [min(count, lanes) for count in left]
    images = [[(image, n) for n in range(count)] for image, count in enumerate(left)]
    groups, width = packing(images, lanes, len(left) + spare)
    assert [one for group in groups for one in group] == [one for image in images for one in image]
    assert all(len({image for image, _ in group}) == 1 and 1 <= len(group) <= width for group in groups)
    assert 1 <= width <= lanes
    assert len(groups) <= len(left) + spare
    assert len(groups) * width <= len(left) * lanes * 1.4  # never much more than it would be left as it is


def test_few_captions_of_many_images_get_a_lane_each_and_many_of_one_share_it():
    assert packing([["a"], ["b"], ["c", "d"]], 8, 8) == ([["a"], ["b"], ["c"], ["d"]], 1)
    assert packing([list("abcdefg")], 8, 8) == ([list("abcdefg")], 8)
    assert packing([list("abc"), ["h"]], 8, 2) == ([list("abc"), ["h"]], 4)  # no room for more copies of a prompt


def test_a_packed_scheduler_goes_on_with_what_runs():
    scheduler = Scheduler(2, 3)
    for number in range(6):
        scheduler.add(number % 2, number)
    scheduler.place()
    scheduler.finish(1)
    images = scheduler.of_one_image()
    assert [[placement.request for placement in image] for image in images] == [[0, 4], [1, 3, 5]]
    packed = scheduler.packed([images[0][:1], images[0][1:], images[1][:2], images[1][2:]], 2)
    assert [(group.key, group.lanes) for group in packed.groups] == [
        (0, [0, None]),
        (0, [4, None]),
        (1, [1, 3]),
        (1, [5, None]),
    ]
