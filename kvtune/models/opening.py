"""From the options of a command to a loaded model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from kvtune.errors import RequestError, check_count
from kvtune.models.options import EngineOptions, ModelOptions, check_dtype, parse_lanes, quantization_of

if TYPE_CHECKING:
    from kvtune.models.family import VisionLanguageModel


def check_options(options: ModelOptions) -> None:
    """Check all that can be checked without the model.

    Raises
    ------
    RequestError
        If an option says nothing that there is, the device is not there, or two options exclude each other.
    """
    if options.random_weights and (options.revision is not None or options.load_in_4bit or options.load_in_8bit):
        raise RequestError("--revision and quantization are for stored weights; leave them or --random-weights out")
    engine = options.engine
    if options.random_weights and engine.gpus_per_worker > 1:
        raise RequestError("random weights are built on one GPU; leave --gpus-per-worker out")
    parse_lanes(engine.lanes)
    if engine.has_workers:
        worker_devices(engine)
    else:
        own_device(engine)
    check_dtype(quantization_of(options.dtype, options.load_in_4bit, options.load_in_8bit)[0])


def own_device(engine: EngineOptions) -> str:
    """Where this process has the model if it has no workers: a device, or several GPUs with commas between.

    Raises
    ------
    RequestError
        If a device is not there, or the options exclude each other.
    """
    from kvtune.models.devices import resolve_device

    _check_counts(engine)
    if engine.gpus_per_worker > 1:
        devices = _groups_of_gpus(engine)
        if len(devices) > 1:
            raise RequestError(
                f"one model is looked at here; name {engine.gpus_per_worker} GPUs with --device, not more"
            )
        return devices[0]
    if "," in engine.device:
        raise RequestError(
            f"one model is looked at here; name one device, or add --gpus-per-worker {engine.device.count(',') + 1} to "
            "divide its layers among them"
        )
    resolve_device(engine.device)
    return engine.device


def worker_devices(engine: EngineOptions) -> list[str]:
    """The device or devices of each worker on this machine; empty on a cluster, which has its own.

    Raises
    ------
    RequestError
        If a device is not there, the options exclude each other, or Ray is not installed.
    """
    _check_counts(engine)
    devices = _on_cluster(engine) if engine.cluster is not None else _on_this_machine(engine)
    if find_spec("ray") is None:
        raise RequestError("several workers need Ray: pip install 'kvtune[cluster]'")
    return devices


def _on_cluster(engine: EngineOptions) -> list[str]:
    if engine.device not in ("auto", "cuda", "cpu"):
        raise RequestError("--cluster takes the GPUs that are free there; leave --device out, or give --device cpu")
    if engine.device == "cpu" and engine.gpus_per_worker > 1:
        raise RequestError(_NO_GPU.format(engine=engine))
    if engine.device == "cpu" and engine.workers is None:
        raise RequestError("--device cpu on a cluster needs --workers N: how many there are to be")
    return []


def _on_this_machine(engine: EngineOptions) -> list[str]:
    import torch

    from kvtune.models.devices import resolve_device

    if engine.gpus_per_worker > 1:
        return _groups_of_gpus(engine)
    named = engine.device.split(",")
    for device in named:
        resolve_device(device)
    if len(named) > 1:
        _check_each_once(engine)
        if engine.workers not in (None, len(named)):
            raise RequestError(f"--device names {len(named)} devices; leave --workers {engine.workers} out")
        return named
    assert engine.workers is not None
    if named == ["cpu"] or (named == ["auto"] and not torch.cuda.is_available()):
        return ["cpu"] * engine.workers
    if named not in (["auto"], ["cuda"]):
        raise RequestError(f"--workers has a device each; give --device cuda, or all of them, as {named[0]},cuda:N")
    if engine.workers > torch.cuda.device_count():
        raise RequestError(f"--workers {engine.workers}: there are {torch.cuda.device_count()} GPUs, one a worker")
    return [f"cuda:{index}" for index in range(engine.workers)]


_NO_GPU = "--gpus-per-worker {engine.gpus_per_worker}: there is no GPU with --device {engine.device}; leave it out"


def _groups_of_gpus(engine: EngineOptions) -> list[str]:
    """The GPUs of each worker of several, on this machine."""
    import torch

    from kvtune.models.devices import resolve_device

    each, named = engine.gpus_per_worker, engine.device.split(",")
    if "cpu" in named or (named == ["auto"] and not torch.cuda.is_available()):
        raise RequestError(_NO_GPU.format(engine=engine))
    for device in named:
        resolve_device(device)
    if named in (["auto"], ["cuda"]):
        wanted, there = (engine.workers or 1) * each, torch.cuda.device_count()
        if wanted > there:
            times = f"--workers {engine.workers} --gpus-per-worker" if engine.workers else "--gpus-per-worker"
            raise RequestError(f"{times} {each}: that takes {wanted} GPUs, and there are {there}")
        named = [f"cuda:{index}" for index in range(wanted)]
    _check_each_once(engine)
    if len(named) % each:
        raise RequestError(
            f"--device names {len(named)} GPU{'s' * (len(named) > 1)}, which cannot be divided into workers of {each}; "
            f"name a multiple of {each}, or give another --gpus-per-worker"
        )
    if engine.workers not in (None, len(named) // each):
        raise RequestError(
            f"--device names {len(named)} GPUs for {len(named) // each} workers of {each}; leave --workers "
            f"{engine.workers} out"
        )
    return [",".join(named[first : first + each]) for first in range(0, len(named), each)]


def _check_counts(engine: EngineOptions) -> None:
    if engine.workers is not None:
        check_count("--workers", engine.workers)
    check_count("--gpus-per-worker", engine.gpus_per_worker)


def _check_each_once(engine: EngineOptions) -> None:
    named = engine.device.split(",")
    if len(set(named)) < len(named):
        raise RequestError(f"--device {engine.device} names a device twice; a device has one worker")


def open_model(options: ModelOptions) -> VisionLanguageModel:
    """Load the model, or build it. Raises as :func:`check_options` and :func:`kvtune.models.load_model` do."""
    from kvtune.models.devices import resolve_device
    from kvtune.models.loading import load_model

    check_options(options)
    device = own_device(options.engine)
    if not options.random_weights:
        return load_model(
            options.name, device, options.dtype, options.revision, options.load_in_4bit, options.load_in_8bit
        )
    from kvtune.models.random_weights import random_model

    return random_model(options.name, resolve_device(device), options.dtype)
