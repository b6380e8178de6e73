"""What a Ray actor with several GPUs is asked for, and what it says of them; no cluster is started."""

import os
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")

import ray

from kvtune.captioning.cluster import ray_backend, worker
from kvtune.errors import RequestError
from kvtune.models.options import EngineOptions, ModelOptions


@pytest.fixture
def asked(monkeypatch):
    """``asked(machines, engine, devices)``: a backend on machines of so many GPUs; what was asked of its actors."""
    actors = []

    def make(machines, engine, devices=()):
        nodes = [{"Alive": gpus >= 0, "Resources": {"GPU": abs(gpus)} if gpus else {}} for gpus in machines]
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: nodes)

        def options(**wanted):
            return SimpleNamespace(remote=lambda model, *_: actors.append((wanted, model.engine)))

        monkeypatch.setattr(ray_backend, "_Actor", SimpleNamespace(options=options))
        return ray_backend.RayBackend(ModelOptions("demo", engine=engine), None, 9, devices), actors

    return make


@pytest.mark.parametrize(("gpus", "places"), [(1, 14), (2, 6), (4, 3), (8, 1)])
def test_a_worker_has_its_gpus_on_one_machine(asked, gpus, places):
    backend, actors = asked([8, 5, 0, 1, -8], EngineOptions(cluster="a:1", gpus_per_worker=gpus))
    assert backend.places() == places
    backend.launch(0)
    ((wanted, engine),) = actors
    assert wanted["num_gpus"] == gpus
    assert engine.device == ("cuda" if gpus == 1 else ",".join(f"cuda:{number}" for number in range(gpus)))
    assert not engine.has_workers


def test_no_machine_with_so_many_gpus_is_a_line(asked):
    for workers in (None, 2):
        with pytest.raises(RequestError, match="no machine of the cluster at a:1 has the 8 GPUs of a worker; give a"):
            asked([4, 4], EngineOptions(cluster="a:1", workers=workers, gpus_per_worker=8))
    with pytest.raises(RequestError, match="the cluster at a:1 has no GPU"):
        asked([0], EngineOptions(cluster="a:1"))


def test_on_this_machine_each_worker_is_told_its_gpus(asked):
    engine = EngineOptions("cuda", workers=2, gpus_per_worker=2)
    backend, actors = asked([], engine, ["cuda:0,cuda:1", "cuda:2,cuda:3"])
    backend.launch(1)
    ((wanted, own),) = actors
    assert own.device == "cuda:2,cuda:3" and not own.has_workers and "num_gpus" not in wanted


def test_a_worker_takes_its_own_gpus_where_ray_shows_it_all(monkeypatch):
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": ["5", "6"]})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    options = ModelOptions("demo")
    ray_backend.WorkerActor(options, None, 9, None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"  # what Ray has set is right
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    ray_backend.WorkerActor(options, None, 9, None)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,6"


def test_a_worker_says_how_many_cards_it_has(monkeypatch):
    named = {"cuda:0,cuda:1": ["A", "A"], "cuda:0,cuda:2": ["A", "B"], "cuda:1": ["B"]}
    monkeypatch.setattr(worker, "resolve_devices", lambda device: [torch.device(one) for one in device.split(",")])
    for device, kinds in named.items():
        each = dict(zip(device.split(","), kinds, strict=True))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda target, each=each: f"card {each[str(target)]}")
        said = worker.machine(device).device
        assert said == {"AA": "2 x card A", "AB": "1 x card A, 1 x card B", "B": "card B"}["".join(kinds)]
