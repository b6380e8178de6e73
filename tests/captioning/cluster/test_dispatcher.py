"""Dealing out against what anyone may expect of it, for any arrivals, answers, deaths, hangs and withdrawals."""

from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.captioning.cluster.dispatcher import Dispatcher
from kvtune.captioning.request import CaptionRequest

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 9)),
        st.tuples(st.sampled_from(["answer", "answer", "answer", "lose", "hang"]), st.integers(0, 60)),
        st.tuples(st.just("withdraw"), st.integers(0, 3)),
        st.tuples(st.just("resize"), st.integers(1, 9)),
    ),
    max_size=80,
)
IMAGES_OF_TRIALS = st.lists(st.integers(1, 6), max_size=25)
"""Of each image, how many trials ask for it."""


def requests_of(images):
    for image, trials in enumerate(images):
        for tag in range(trials):
            yield CaptionRequest(image, Path(str(image)), None, tag)


class Played:
    """A dispatcher and workers that only pretend."""

    def __init__(self, images, speeds=None):
        self.requests = list(requests_of(images))
        self.pulled = []
        self.dispatcher = Dispatcher(self._pull(), count())
        self.queues, self.seen, self.hanging = {}, {}, set()
        self.rows, self.speeds, self.names = {}, speeds, count()
        self.answered, self.withdrawn, self.gone = [], [], set()

    def _pull(self):
        for request in self.requests:
            self.pulled.append(request)
            if request.tag in self.gone:
                self.withdrawn.append(request)
            yield request

    def join(self, rows):
        name = next(self.names)
        self.queues[name], self.seen[name], self.rows[name] = {}, set(), rows
        self.dispatcher.join(name, rows, self.speeds[name % len(self.speeds)] if self.speeds else 1.0)

    def deal(self):
        for worker, order in self.dispatcher.deal().items():
            for number, request in order.send:
                assert number not in self.seen[worker], "a worker is never sent a number twice"
                self.seen[worker].add(number)
                self.queues[worker][number] = request
            for number in order.drop:
                del self.queues[worker][number]
        self.check()

    def check(self):
        open_ = [request for queue in self.queues.values() for request in queue.values()]
        settled = self.answered + self.withdrawn
        assert not {id(request) for request in open_} & {id(request) for request in settled}
        assert len({id(request) for request in open_}) == len(open_), "nothing is with two workers"
        assert len(open_) + self.dispatcher.waiting + len(settled) == len(self.pulled), "nothing is lost"
        place = {}
        for worker, queue in self.queues.items():
            assert list(queue) == self.dispatcher.held_by(worker)
            for request in queue.values():
                assert place.setdefault(request.image, worker) == worker, "an image is with one worker"
        if self.dispatcher.waiting and self.speeds is None:
            assert all(len(queue) >= self.rows[worker] for worker, queue in self.queues.items())

    def answer(self, worker, number):
        request = self.queues[worker].pop(number)
        assert self.dispatcher.answer(worker, number) is request
        assert self.dispatcher.answer(worker, number) is None
        self.answered.append(request)

    def lose(self, worker):
        self.dispatcher.lose(worker)
        for number in self.queues.pop(worker):
            assert self.dispatcher.answer(worker, number) is None, "a worker that was given up has no say"
        self.hanging.discard(worker)

    def withdraw(self, tag):
        before = {id(request) for request in self.answered + self.withdrawn}
        self.withdrawn += [each for each in self.pulled if each.tag == tag and id(each) not in before]
        self.gone.add(tag)
        self.dispatcher.withdraw(tag)

    def play(self, event, value):
        workers = sorted(self.queues)
        if event == "join":
            self.join(value)
        elif event == "withdraw":
            self.withdraw(value)
        elif workers:
            worker = workers[value % len(workers)]
            if event == "lose":
                self.lose(worker)
            elif event == "hang":
                self.hanging.add(worker)
            elif event == "resize":
                self.rows[worker] = value
                self.dispatcher.resize(worker, value)
            elif self.queues[worker] and worker not in self.hanging:
                numbers = list(self.queues[worker])
                self.answer(worker, numbers[value % min(len(numbers), self.rows[worker])])
        self.deal()

    def finish(self):
        """Give up whoever hangs, and let the others work to the end."""
        for worker in list(self.hanging):
            self.lose(worker)
        if not self.queues:
            self.join(3)
        self.deal()
        while not self.dispatcher.is_done:
            worker = max(self.queues, key=lambda worker: len(self.queues[worker]))
            assert self.queues[worker], "somebody has something to do until all is done"
            self.answer(worker, next(iter(self.queues[worker])))
            self.deal()


@settings(max_examples=150, deadline=None)
@given(images=IMAGES_OF_TRIALS, events=EVENTS)
def test_every_request_is_answered_once_or_withdrawn(images, events):
    played = Played(images)
    for event, value in events:
        played.play(event, value)
    played.finish()
    assert sorted(map(id, played.answered + played.withdrawn)) == sorted(map(id, played.requests))
    assert not any(played.queues.values())


@settings(max_examples=100, deadline=None)
@given(images=IMAGES_OF_TRIALS, events=EVENTS, speeds=st.lists(st.floats(0.01, 100), min_size=1, max_size=3))
def test_so_it_is_whatever_the_workers_speeds_are(images, events, speeds):
    played = Played(images, speeds)
    for event, value in events:
        played.play(event, value)
    played.finish()
    assert sorted(map(id, played.answered + played.withdrawn)) == sorted(map(id, played.requests))


def test_images_go_out_in_their_order_and_no_more_than_workers_have_room_for():
    played = Played([2] * 100)
    played.join(8)
    played.join(8)
    played.deal()
    held = {worker: [request.image_id for request in queue.values()] for worker, queue in played.queues.items()}
    assert sorted(image for images in held.values() for image in images) == [image for image in range(10) for _ in "ab"]
    assert all(images == sorted(images) for images in held.values())
    assert len(played.pulled) <= 22, "no further ahead than it takes"


def test_a_fast_worker_gets_more_than_a_slow_one():
    played = Played([1] * 200)
    played.join(4)
    played.join(4)
    played.deal()
    counts = {0: 0, 1: 0}
    for step in range(1000):
        worker = 0 if step % 5 else 1
        if played.queues[worker]:
            played.answer(worker, next(iter(played.queues[worker])))
            counts[worker] += 1
        played.deal()
    assert sum(counts.values()) == 200
    assert counts[0] > 3 * counts[1]


def test_where_little_is_left_it_is_divided_by_speed():
    played = Played([1] * 30, speeds=[2.0, 1.0])
    played.join(40)
    played.join(40)
    played.deal()
    assert [len(queue) for queue in played.queues.values()] == [20, 10]


def test_an_idle_worker_takes_over_what_another_has_not_begun():
    played = Played([2] * 30)
    played.join(60)
    played.deal()
    assert len(played.queues[0]) == 60
    played.dispatcher.resize(0, 10)  # as it turns out, once it has seen its memory
    played.rows[0] = 10
    played.join(10)
    played.deal()
    assert len(played.queues[1]) == 24, "half of what no row can have begun, in whole images"
    played.finish()
    assert len(played.answered) == 60


def test_what_a_lost_worker_had_goes_out_before_anything_else():
    played = Played([1] * 100)
    played.join(8)
    played.join(8)
    played.deal()
    had = {request.image_id for request in played.queues[0].values()}
    played.lose(0)
    for _ in range(10):
        played.answer(1, next(iter(played.queues[1])))
    played.deal()
    assert had <= {request.image_id for request in played.queues[1].values()}


def test_a_tag_that_was_withdrawn_is_not_sent_any_more():
    played = Played([2] * 20)
    played.join(4)
    played.deal()
    played.withdraw(1)
    played.finish()
    assert {request.tag for request in played.answered if request.image_id > 4} == {0}
