"""Workers as Ray actors, on a local cluster of two nodes: what they write, and what becomes of it when they die."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")
pytestmark = pytest.mark.slow  # processes that each load a model

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from kvtune.analysis.summarize import summarize  # noqa: E402
from kvtune.captioning import CaptionRequest, open_captioner  # noqa: E402
from kvtune.captioning.cluster.hang_watch import HangWatch  # noqa: E402
from kvtune.coco import CocoFolder  # noqa: E402
from kvtune.demo import demo_coco  # noqa: E402
from kvtune.methods import KVSmooth  # noqa: E402
from kvtune.models.options import EngineOptions, ModelOptions  # noqa: E402
from kvtune.search.search_options import SearchOptions, check_options  # noqa: E402
from kvtune.search.session import search, searching  # noqa: E402
from kvtune.search.view import View  # noqa: E402
from kvtune.study.caption_log import read_captions  # noqa: E402
from kvtune.study.study_folder import StudyFolder  # noqa: E402
from kvtune.study.together import alone as run_alone  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
TRIALS, IMAGES = 3, 20


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def captioner(cluster):
    engine = EngineOptions("cpu", workers=2, cluster=cluster.address)
    return open_captioner(ModelOptions("demo", engine=engine))


def options(parent: Path) -> SearchOptions:
    return SearchOptions(
        ModelOptions("demo", engine=EngineOptions("cpu")),
        trials=TRIALS,
        images=IMAGES,
        holdout_images=5,
        parallel_trials=TRIALS,
        max_new_tokens=60,
        study="s",
        studies_dir=parent,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    parent = tmp_path_factory.mktemp("alone")
    search(options(parent), View())
    return found(parent)


def found(parent: Path) -> tuple[Any, ...]:
    folder = StudyFolder(parent / "s")
    summary = summarize(folder)
    captions = {path.name: sorted(read_captions(path).items()) for path in folder.captions.glob("*.jsonl")}
    return summary.trials, summary.front, summary.baseline, captions


def requests(count: int = 30) -> list[CaptionRequest]:
    folder = CocoFolder(demo_coco())
    ids = folder.image_ids("val2014")[:count]
    methods = [None, KVSmooth(0.9, 15, 0.2, 1, 15)]
    return [CaptionRequest(i, folder.image_paths([i])[0], m, n) for i in ids for n, m in enumerate(methods)]


def pids(captioner: Any) -> list[int]:
    workers = captioner.pool._workers
    return [ray.get(workers[number].handle.pid.remote()) for number in captioner.pool.roster.ready]


def test_two_workers_write_what_one_writes(captioner, alone, tmp_path):
    asked = options(tmp_path)
    run_alone(searching(asked, check_options(asked), View(), captioner=captioner.changed(max_new_tokens=60)))
    assert found(tmp_path) == alone
    assert all(entry["captions"] for entry in captioner.pool.roster.entries()), "both did"


def test_a_tag_that_was_withdrawn_comes_again(captioner):
    captioner = captioner.changed(max_new_tokens=40)
    first = {}
    for caption in captioner.run(requests(12)):
        assert len(first) < 3 or caption.tag == 0, "withdrawn"
        first[caption.image_id, caption.tag] = caption.text
        if len(first) == 3:
            captioner.withdraw(1)
    again = {(caption.image_id, caption.tag): caption.text for caption in captioner.run(requests(12))}
    assert again.keys() == {(request.image_id, request.tag) for request in requests(12)}
    assert first.items() <= again.items()
    assert {image for image, tag in first if tag == 0} == {request.image_id for request in requests(12)}


def test_a_worker_that_is_killed_and_one_that_hangs_lose_nothing(captioner):
    captioner = captioner.changed(max_new_tokens=40)
    captioner.watch = HangWatch(first=60, least=5, times=3)
    both, (first, second) = set(captioner.pool.roster.ready), pids(captioner)
    begun = requests()
    captions = {}
    for count, caption in enumerate(captioner.run(begun)):
        assert (caption.image_id, caption.tag) not in captions
        captions[caption.image_id, caption.tag] = caption.text
        if count == 5:
            os.kill(first, signal.SIGKILL)
        if count == 20:
            os.kill(second, signal.SIGSTOP)
    assert captions.keys() == {(request.image_id, request.tag) for request in begun}
    while both & set(captioner.pool.roster.ready):  # all that was theirs may have been written before
        assert len(list(captioner.run(begun))) == len(begun)


def test_a_node_that_joins_late_gets_work(cluster, captioner):
    captioner = captioner.changed(max_new_tokens=40)
    engine = EngineOptions("cpu", workers=3, cluster=cluster.address)
    captioner.pool.backend.options = replace(captioner.pool.backend.options, engine=engine)
    ready = captioner.pool.roster.ready

    def work_until(workers: int) -> set[int]:
        until = time.monotonic() + 120
        while len(ready) < workers and time.monotonic() < until:
            assert len(list(captioner.run(requests(20)))) == 40
        return set(ready)

    before = work_until(2)  # those that replace the ones lost above
    node = cluster.add_node(**NODE)
    (new,) = work_until(3) - before
    list(captioner.run(requests(30)))
    assert captioner.pool.roster.entries()[new]["captions"] > 0
    cluster.remove_node(node)
    assert len(list(captioner.run(requests(20)))) == 40, "and one that goes takes nothing with it"


def test_a_driver_that_is_killed_goes_on_from_its_captions(cluster, captioner, alone, tmp_path):
    code = (
        "import sys, ray; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "import test_ray as t; from dataclasses import replace\n"
        "from kvtune.models.options import EngineOptions, ModelOptions\n"
        "engine = EngineOptions('cpu', workers=1, cluster=sys.argv[1])\n"
        "t.search(replace(t.options(Path(sys.argv[2])), model=ModelOptions('demo', engine=engine)), t.View())\n"
    )
    captioner.close()
    arguments = [sys.executable, "-c", code, cluster.address, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(arguments)
    baseline = tmp_path / "s" / "captions" / "baseline.jsonl"
    while process.poll() is None and not (baseline.exists() and baseline.read_bytes().count(b"\n") > 5):
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = read_captions(baseline)
    assert len(before) > 5
    search(options(tmp_path), View())
    assert found(tmp_path) == alone
    assert before.items() <= read_captions(baseline).items()
