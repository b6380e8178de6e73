"""From the options of a command to a loaded model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from kvtune.errors import RequestError
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
    from kvtune.models.loading import resolve_device

    if options.random_weights and (options.revision is not None or options.load_in_4bit or options.load_in_8bit):
        raise RequestError("--revision and quantization are for stored weights; leave them or --random-weights out")
    parse_lanes(options.engine.lanes)
    if options.engine.has_workers:
        worker_devices(options.engine)
    else:
        resolve_device(options.engine.device)
    check_dtype(quantization_of(options.dtype, options.load_in_4bit, options.load_in_8bit)[0])


def worker_devices(engine: EngineOptions) -> list[str]:
    """The device of each worker on this machine; empty for those on a cluster, which has its own.

    Raises
    ------
    RequestError
        If a device is not there, the options exclude each other, or Ray is not installed.
    """
    import torch

    from kvtune.models.loading import resolve_device

    if find_spec("ray") is None:
        raise RequestError("several workers need Ray: pip install 'kvtune[cluster]'")
    named = engine.device.split(",")
    if engine.workers is not None and engine.workers < 1:
        raise RequestError(f"--workers must be at least 1, not {engine.workers}")
    if engine.cluster is not None:
        if engine.device not in ("auto", "cuda", "cpu"):
            raise RequestError("--cluster takes the GPUs that are free there; leave --device out, or give --device cpu")
        if engine.device == "cpu" and engine.workers is None:
            raise RequestError("--device cpu on a cluster needs --workers N: how many there are to be")
        return []
    for device in named:
        resolve_device(device)
    if len(named) > 1:
        if len(set(named)) < len(named):
            raise RequestError(f"--device {engine.device} names a device twice; a device has one worker")
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


def open_model(options: ModelOptions) -> VisionLanguageModel:
    """Load the model, or build it. Raises as :func:`check_options` and :func:`kvtune.models.load_model` do."""
    from kvtune.models.loading import load_model, resolve_device

    check_options(options)
    device = options.engine.device
    if not options.random_weights:
        return load_model(
            options.name, device, options.dtype, options.revision, options.load_in_4bit, options.load_in_8bit
        )
    from kvtune.models.random_weights import random_model

    return random_model(options.name, resolve_device(device), options.dtype)
