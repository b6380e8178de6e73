"""A captioner of many workers, with workers that only pretend, for any deaths, hangs and withdrawals."""

from collections import Counter
from dataclasses import replace

import pytest
from failing_device import cuda_error
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.bench.cluster.pretended import PretendedBackend, pretended_model
from kvtune.captioning.cluster.backend import WorkerDiedError
from kvtune.captioning.cluster.data_parallel import DataParallelCaptioner
from kvtune.captioning.cluster.hang_watch import HangWatch
from kvtune.captioning.cluster.messages import Machine, Ready, Report
from kvtune.captioning.cluster.pool import DEATHS_IN_A_ROW, WorkerPool
from kvtune.captioning.request import CaptionRequest
from kvtune.errors import KvtuneError, RequestError


class Time:
    """A clock that goes on when somebody sleeps, and then lets happen what is due."""

    def __init__(self):
        self.now, self.due = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        while self.due and self.due[0][0] <= self.now:
            self.due.pop(0)[1]()


def opened(rates=(10.0, 10.0), rows=4, versions=None, ready=None, **options):
    time = Time()

    def write(request):
        return f"image {request.image_id} {request.tag}", 9

    backend = PretendedBackend(rates, write, rows, time, time.sleep)
    backend.machine = replace(backend.machine, versions=versions or {})
    backend.ready = ready
    notes = []
    pool = WorkerPool(backend, backend.machine.versions, on_note=notes.append, clock=time, **options)
    pool.start()
    watch = HangWatch(first=20, least=5, times=10)
    return DataParallelCaptioner(pool, watch=watch), backend, time, notes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{image}.jpg" for image in range(40)]
    for path in paths:
        path.touch()
    return paths


def requests_of(files, trials=3):
    return [CaptionRequest(image, path, None, tag) for image, path in enumerate(files) for tag in range(trials)]


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(0, 40),
    accidents=st.lists(
        st.tuples(st.sampled_from(["kill", "hang", "join"]), st.floats(0, 20), st.integers(0, 50)), max_size=6
    ),
    withdrawals=st.dictionaries(st.integers(0, 60), st.integers(0, 2), max_size=3),
)
def test_every_caption_comes_once_whatever_happens_to_workers(files, images, accidents, withdrawals):
    captioner, backend, time, _ = opened()

    def accident(kind, which):
        if kind == "join":
            backend.rates.append(10.0)
            return
        alive = [worker for worker in backend.workers if not worker.is_dead]
        for worker in alive[which % max(1, len(alive)) :][:1]:
            worker.is_dead, worker.hangs = kind == "kill", kind == "hang"

    time.due = sorted(
        ((at, lambda kind=kind, which=which: accident(kind, which)) for kind, at, which in accidents),
        key=lambda due: due[0],
    )
    requests = requests_of(files[:images])
    seen, withdrawn = Counter(), set()
    for count, caption in enumerate(captioner.run(iter(requests))):
        assert caption.tag not in withdrawn
        assert caption.text == f"image {caption.image_id} {caption.tag}"
        seen[caption.image_id, caption.tag] += 1
        if count in withdrawals:
            captioner.withdraw(withdrawals[count])
            requests = [each for each in requests if each.tag != withdrawals[count]]
            withdrawn.add(withdrawals[count])
    assert set(seen.values()) <= {1}
    assert {(each.image_id, each.tag) for each in requests} <= seen.keys()


def test_a_second_run_knows_nothing_of_the_first(files):
    captioner, backend, _, _ = opened()
    running = captioner.run(requests_of(files))
    next(running)
    running.close()
    assert not any(worker.queue for worker in backend.workers)
    assert len(list(captioner.run(requests_of(files[:5])))) == 15


def test_what_is_done_is_told_and_that_of_earlier_runs_is_not(files):
    captioner, _, _, _ = opened()
    for _ in range(2):
        told = []
        captions = list(captioner.run(requests_of(files), told.append))
        assert told[-1].tokens == 9 * len(captions)
        assert told[-1].by.startswith("2 workers (2 x pretended)")


def test_a_worker_that_hangs_is_ended_and_what_it_had_is_written_by_the_others(files):
    captioner, backend, time, notes = opened()
    time.due = [(2.0, lambda: setattr(backend.workers[0], "hangs", True))]
    captions = list(captioner.run(requests_of(files)))
    assert len(captions) == 120
    assert backend.workers[0].is_dead
    assert len(backend.workers) == 3, "another took its place"
    assert any("it hangs" in note for note in notes)
    assert "1 lost" in str(captioner.pool.roster)


def test_a_worker_whose_device_is_lost_is_replaced_and_what_it_had_is_written_by_the_others(files):
    captioner, backend, time, notes = opened()
    first, report = backend.workers[0], backend.workers[0].report

    def lost(now):
        first.hangs = True
        return replace(report(now), lost="the GPU does nothing more for this process")

    time.due = [(2.0, lambda: setattr(first, "report", lost))]
    captions = list(captioner.run(requests_of(files)))
    assert len(captions) == 120
    assert first.is_dead and len(backend.workers) == 3
    assert notes == ["worker on here is lost and is replaced: the GPU does nothing more for this process"]


def test_devices_that_are_lost_again_and_again_do_not_go_on_for_ever(files):
    captioner, backend, _, _ = opened()
    launch = backend.launch

    def launched(place):
        worker = launch(place)
        worker.report = lambda now: Report(worker.run, lost="the GPU does nothing more for this process")
        return worker

    backend.launch = launched
    for worker in backend.workers:
        worker.is_dead = True
    with pytest.raises(KvtuneError, match="no worker is left: the GPU does nothing more"):
        list(captioner.run(requests_of(files)))
    assert len(backend.workers) <= 2 + 2 * DEATHS_IN_A_ROW


def test_a_device_that_cannot_be_used_is_one_line():
    time = Time()
    backend = PretendedBackend([10.0], lambda request: ("", 1), 4, time, time.sleep)

    def busy(promise):
        raise cuda_error("CUDA-capable device(s) is/are busy or unavailable")

    backend.result = busy
    with pytest.raises(RequestError, match=r"^the GPU cannot be used: CUDA error: .* busy or unavailable; another pro"):
        WorkerPool(backend, {}, clock=time).start()


def test_when_no_worker_is_left_what_has_come_is_given_and_one_line_says_why(files):
    captioner, backend, time, _ = opened()
    kill = backend.launch

    def launch(place):
        worker = kill(place)
        worker.is_dead = True
        return worker

    def end():
        backend.launch = launch
        for worker in backend.workers:
            worker.is_dead = True

    time.due = [(3.0, end)]
    captions = []
    with pytest.raises(KvtuneError, match="no worker is left: it was killed"):
        captions.extend(captioner.run(requests_of(files)))
    assert captions
    assert len(backend.workers) <= 2 + 2 * DEATHS_IN_A_ROW


def test_a_request_on_which_every_worker_dies_does_not_go_on_for_ever(files):
    captioner, backend, _, _ = opened()

    def write(request):
        if request.image_id == 3:
            raise WorkerDiedError("it crashed")
        return "text", 9

    for worker in backend.workers:
        worker.write = write
    backend.write = write
    with pytest.raises(KvtuneError, match="no worker is left"):
        list(captioner.run(requests_of(files[:5])))


def test_workers_of_other_versions_or_devices_are_left_out_by_name(files):
    time = Time()
    backend = PretendedBackend([10.0] * 4, lambda request: ("text", 9), 4, time, time.sleep)
    backend.machine = Machine("a", "H100", {"torch": "2.13"})
    plain = backend.launch
    odd = {1: Machine("b", "A100", {"torch": "2.13"}), 2: Machine("c", "H100", {"torch": "2.12"})}

    def launch(place):
        worker = plain(place)
        worker.machine = odd.get(place, worker.machine)
        return worker

    backend.launch = launch
    notes = []
    pool = WorkerPool(backend, {"torch": "2.13"}, on_note=notes.append, clock=time)
    pool.start()
    assert str(pool.roster) == "2 workers (2 x H100)"
    assert "b has A100, and the others have H100" in notes[0] + notes[1]
    assert "c has torch 2.12, and here is 2.13" in notes[0] + notes[1]
    mixed = WorkerPool(backend, {"torch": "2.13"}, mixed=True, on_note=notes.append, clock=time)
    mixed.start()
    assert str(mixed.roster) == "4 workers (3 x H100, 1 x A100)"
    odd.update({place: replace(backend.machine, versions={"torch": "2.12"}) for place in range(4)})
    with pytest.raises(RequestError, match=r"a has torch 2.12.*install the same, or give --mixed-workers"):
        WorkerPool(backend, {"torch": "2.13"}, on_note=notes.append, clock=time).start()


def late(backend, time, change):
    """Let a worker join in mid-run, changed."""
    plain = backend.launch

    def launch(place):
        worker = plain(place)
        change(worker)
        return worker

    backend.launch = launch
    time.due = [(2.0, lambda: backend.rates.append(10.0))]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"revision": "bbb"}, "there has the model in revision bbb, and the others in revision aaa; put the same"),
        ({"dtype_name": "float16"}, "there has the model in dtype float16, and the others in dtype float32; put the"),
        ({}, "there has other weights than the others; put the same weights of demo there"),
    ],
)
@pytest.mark.parametrize("mixed", [False, True])
def test_a_late_worker_with_other_weights_is_refused_even_if_workers_may_be_mixed(files, change, why, mixed):
    model = replace(pretended_model(), revision="aaa")
    captioner, backend, time, notes = opened(mixed=mixed, ready=Ready(model, 4, "some"))
    machine = replace(backend.machine, node="there")
    other = Ready(replace(model, **change), 4, "some" if change else "other")
    late(backend, time, lambda worker: vars(worker).update(machine=machine, ready=other))
    assert len(list(captioner.run(requests_of(files)))) == 120
    assert [note for note in notes if why in note] == notes
    assert len(backend.workers) == 3 and backend.workers[2].is_dead and not backend.workers[2].captions


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("what", [{"versions": {"torch": "2.12"}}, {"device": "A100"}])
def test_a_late_worker_of_other_versions_or_device_is_let_in_only_if_workers_may_be_mixed(files, what, mixed):
    captioner, backend, time, notes = opened(versions={"torch": "2.13"}, mixed=mixed)
    machine = replace(backend.machine, node="there", **what)
    late(backend, time, lambda worker: vars(worker).update(machine=machine))
    assert len(list(captioner.run(requests_of(files)))) == 120
    assert [("a worker is left out: there has" in note) for note in notes] == ([] if mixed else [True])
    assert bool(backend.workers[2].captions) == mixed


def test_who_works_and_who_was_lost_is_told_a_machine_a_line(files):
    captioner, backend, time, _ = opened(rates=(20.0, 10.0, 10.0), mixed=True)
    backend.machine = replace(backend.machine, node="second", device="A100")
    time.due = [(2.0, lambda: setattr(backend.workers[1], "is_dead", True))]
    told = []
    list(captioner.run(requests_of(files), told.append))
    all_of_them, *each = told[-1].by.splitlines()
    assert all_of_them.startswith("3 workers (2 x pretended, 1 x A100), 1 lost, ")
    first, second, lost = (line.split(", ") for line in each)
    assert first[0] == "here: 2 x pretended" and len(first[1].split()) == 3
    assert second[0] == "second: 1 x A100" and second[1].endswith(" each")
    assert lost == ["here: lost: it was killed"]
    assert len(captioner.workers["in_words"]) == 4
    entries = captioner.workers["workers"]
    assert [entry["lost"] for entry in entries] == [None, "it was killed", None, None]
    assert sum(entry["captions"] for entry in entries) == 120
