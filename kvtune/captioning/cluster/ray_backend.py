"""Workers as Ray actors. All that kvtune knows of Ray is here."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions
import torch

from kvtune.captioning.cluster.backend import WorkerDiedError
from kvtune.captioning.cluster.ray_address import no_cluster
from kvtune.errors import KvtuneError, RequestError
from kvtune.models.options import ModelOptions

if TYPE_CHECKING:
    from pathlib import Path

    from kvtune.captioning.cluster.messages import Batch, Machine, Ready, Report
    from kvtune.methods import Method

log = logging.getLogger(__name__)

OBJECT_STORE = 256 * 2**20
"""Bytes of the object store where kvtune starts Ray itself; requests and captions are small."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"

_LEFT_ALONE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
"""Where this is set, as on clusters for training, Ray shows all of a machine's GPUs to each of its workers."""


@dataclass(frozen=True)
class Here:
    """What a worker on the driver's machine has of it: threads, and the GPUs by the numbers that the driver sees."""

    threads: int
    visible: str | None


class WorkerActor:
    """A worker's process: calls come in one after the other, while :meth:`report` waits in a thread of its own."""

    def __init__(self, options: ModelOptions, prompt: str | None, max_new_tokens: int, here: Here | None) -> None:
        self._options, self._prompt, self._max_new_tokens = options, prompt, max_new_tokens
        self._is_elsewhere = here is None
        if here is not None:
            os.environ.pop(_VISIBLE, None)
            os.environ |= {} if here.visible is None else {_VISIBLE: here.visible}
            torch.set_num_threads(here.threads)
        elif os.environ.get(_LEFT_ALONE, "0").lower() in ("1", "true"):
            ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
            os.environ |= {_VISIBLE: ",".join(ids)} if ids else {}

    def pid(self) -> int:
        return os.getpid()

    def machine(self) -> Machine:
        from kvtune.captioning.cluster.worker import machine

        return machine(self._options.engine.device)

    def open(self) -> Ready:
        from kvtune.captioning.cluster.worker import Worker
        from kvtune.captioning.one_device import open_on_one_device
        from kvtune.models.availability import at_hand

        if self._is_elsewhere and not self._options.random_weights:
            try:
                at_hand(self._options.name, self._options.revision)  # not that every node begins to download
            except RequestError as error:
                raise RequestError(f"{socket.gethostname()}: {error}") from None
        self._worker = Worker(open_on_one_device(self._options, self._prompt, self._max_new_tokens))
        return self._worker.ready

    def check(self, method: Method) -> None:
        self._worker.check(method)

    def begin(self, run: int) -> None:
        self._worker.begin(run)

    def take(self, batch: Batch) -> None:
        self._worker.take(batch)

    def bring(self, path: Path, content: bytes) -> None:
        self._worker.bring(path, content)

    def drop(self, numbers: list[int]) -> None:
        self._worker.drop(numbers)

    def no_more(self) -> None:
        self._worker.no_more()

    @ray.method(concurrency_group="report")
    def report(self, seconds: float) -> Report:
        return self._worker.report(seconds)


_Actor: Any = ray.remote(concurrency_groups={"report": 1})(WorkerActor)


class RayBackend:
    """Ray on this machine, started for the purpose, or a cluster that runs.

    Parameters
    ----------
    options
        The model; its engine options say where workers run.
    prompt, max_new_tokens
        As for :class:`kvtune.captioning.Captioner`.
    devices
        The device of each worker on this machine, or its GPUs with commas between; empty on a cluster.

    Raises
    ------
    RequestError
        If the cluster does not let in, or has no GPU, or no machine with those of a worker.
    """

    def __init__(self, options: ModelOptions, prompt: str | None, max_new_tokens: int, devices: Sequence[str]) -> None:
        self.options, self._prompt, self._max_new_tokens = options, prompt, max_new_tokens
        self._devices = list(devices)
        self._handles: list[Any] = []
        if not ray.is_initialized():
            self._connect()
        engine = options.engine
        if engine.cluster is None or engine.device == "cpu":
            return
        if engine.gpus_per_worker > 1 and not _room_for_workers(engine.gpus_per_worker):
            raise RequestError(
                f"no machine of the cluster at {engine.cluster} has the {engine.gpus_per_worker} GPUs of a worker; "
                "give a smaller --gpus-per-worker"
            )
        if not self.places():
            raise RequestError(
                f"the cluster at {engine.cluster} has no GPU; give --device cpu --workers N for workers on CPUs"
            )

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        _keep_stdout_for_results()
        cluster = self.options.engine.cluster
        if cluster is None:
            common |= {"num_cpus": len(self._devices), "num_gpus": 0, "include_dashboard": False}
            os.environ.setdefault("RAY_worker_niceness", "0")  # else workers come after all else on the machine
            try:
                ray.init(address="local", object_store_memory=OBJECT_STORE, **common)
            except Exception as error:  # Ray has no kind of its own for it
                raise KvtuneError(f"Ray did not start on this machine: {_first_line(error)}") from error
            return
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # else it is tried for seven minutes
        try:
            ray.init(address=cluster, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise no_cluster(cluster, _first_line(error)) from error
        except ray.exceptions.RayError as error:
            log.debug("Ray: %s", error)
            raise RequestError(
                f"the Ray cluster at {cluster} asks for a token; put its ~/.ray/auth_token here too, or give it as "
                "RAY_AUTH_TOKEN"
            ) from error

    def places(self) -> int:
        if self._devices:
            return len(self._devices)
        engine = self.options.engine
        return engine.workers if engine.workers is not None else _room_for_workers(engine.gpus_per_worker)

    def launch(self, place: int) -> Any:
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0}
        engine, here = self.options.engine, None
        if self._devices:
            options["num_cpus"] = 0
            engine = replace(engine, device=self._devices[place])
            here = Here(max(1, torch.get_num_threads() // len(self._devices)), os.environ.get(_VISIBLE))
        elif engine.device != "cpu":
            each = options["num_gpus"] = engine.gpus_per_worker
            engine = replace(engine, device=",".join(f"cuda:{index}" for index in range(each)) if each > 1 else "cuda")
        one = replace(self.options, engine=replace(engine, workers=None, cluster=None))
        handle = _Actor.options(**options).remote(one, self._prompt, self._max_new_tokens, here)
        self._handles.append(handle)
        return handle

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        try:
            return getattr(handle, method).remote(*arguments)
        except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
            raise KvtuneError(
                "Ray's object store is full, and so is the disk that it spills to; free some space there, or give "
                "more with ray start --object-store-memory BYTES"
            ) from error

    def wait(self, promises: Sequence[Any], seconds: float) -> list[Any]:
        if not promises:
            return []
        kept, others = ray.wait(list(promises), num_returns=1, timeout=seconds)
        if kept and others:
            kept += ray.wait(others, num_returns=len(others), timeout=0)[0]
        return kept

    def result(self, promise: Any) -> Any:
        try:
            return ray.get(promise)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise WorkerDiedError(_first_line(error)) from error
        except (ray.exceptions.OutOfDiskError, ray.exceptions.ObjectLostError) as error:
            raise WorkerDiedError(f"Ray lost what it had to tell: {_first_line(error)}") from error

    def kill(self, handle: Any) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.kill(handle)
        if handle in self._handles:
            self._handles.remove(handle)

    def close(self) -> None:
        for handle in list(self._handles):
            self.kill(handle)


def _room_for_workers(gpus: int) -> int:
    """Workers of so many GPUs that the machines of the cluster have room for."""
    machines = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
    return sum(int(there) // gpus for there in machines)


def _keep_stdout_for_results() -> None:
    """Have Ray log what it would print on stdout when a worker dies, of which kvtune tells in a line of its own."""
    from ray._private import worker as driver

    if hasattr(driver, "print_to_stdstream"):
        driver.print_to_stdstream = lambda data, *_, **__: log.debug("Ray: %s", data.get("lines"))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
