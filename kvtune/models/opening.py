"""From the options of a command to a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvtune.errors import RequestError
from kvtune.models.options import ModelOptions, check_dtype, parse_lanes, quantization_of

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
    resolve_device(options.engine.device)
    check_dtype(quantization_of(options.dtype, options.load_in_4bit, options.load_in_8bit)[0])


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
