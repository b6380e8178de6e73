"""Options of a model: which weights, and where and how they write captions. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from kvtune.errors import RequestError
from kvtune.text import quoted

DTYPES = ("float32", "float16", "bfloat16", "float64")
"""What ``--dtype`` may say beside ``auto``."""

Lanes = int | Literal["auto"]


@dataclass(frozen=True)
class EngineOptions:
    """Where and how captions are written; but for the rounding of half precision, they do not depend on it.

    Attributes
    ----------
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``; several with commas between, a worker each.
    lanes
        Captions decoded at once, by each worker: ``auto`` or a number.
    cuda_graphs
        Whether a CUDA device replays decode steps from graphs.
    workers
        Workers, one a device; None for one device, or on a cluster for all its GPUs.
    cluster
        Address of a Ray cluster on which the workers run, or ``auto``; None for this machine.
    mixed_workers
        Whether workers may have other versions of packages, and other kinds of devices, than most.
    gpus_per_worker
        GPUs that the layers of each worker's model are divided among; one such worker is this process itself.
    """

    device: str = "auto"
    lanes: str = "auto"
    cuda_graphs: bool = True
    workers: int | None = None
    cluster: str | None = None
    mixed_workers: bool = False
    gpus_per_worker: int = 1

    @property
    def has_workers(self) -> bool:
        """Whether captions are written by workers, and not by this process."""
        devices = self.device.count(",") + 1
        if self.gpus_per_worker > 1:
            return self.cluster is not None or (self.workers or 1) != 1 or devices > self.gpus_per_worker
        return self.workers is not None or self.cluster is not None or devices > 1


DEFAULT_ENGINE = EngineOptions()


@dataclass(frozen=True)
class ModelOptions:
    """A model as the command line names it; see :func:`kvtune.models.load_model`.

    Attributes
    ----------
    name
        A short name, a folder or a Hub id.
    dtype
        ``auto``, or one of :data:`DTYPES`; a study's may have ``-4bit`` or ``-8bit`` after it.
    revision
        Branch, tag or commit of Hub weights.
    load_in_4bit, load_in_8bit
        Quantize the language model's weights.
    random_weights
        Build the model full-size without its weights.
    """

    name: str
    dtype: str = "auto"
    revision: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    random_weights: bool = False
    engine: EngineOptions = DEFAULT_ENGINE


def parse_lanes(lanes: str | int) -> Lanes:
    """What ``--lanes`` says: ``auto``, or how many captions are decoded at once.

    Raises
    ------
    RequestError
        If it is neither.
    """
    text = str(lanes)
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise RequestError(f"--lanes must be auto or a whole number above 0, not {quoted(lanes)}")


def check_dtype(dtype: str) -> None:
    """Refuse a ``--dtype`` that names no type."""
    if dtype != "auto" and dtype not in DTYPES:
        raise RequestError(f"unknown dtype {quoted(dtype)}; write auto, {', '.join(DTYPES)}")


def quantization_of(dtype: str, load_in_4bit: bool, load_in_8bit: bool) -> tuple[str, str | None]:
    """The dtype without its quantization, and that: ``4bit``, ``8bit`` or None."""
    named, _, wanted = dtype.partition("-")
    dtype, wanted = (named, wanted) if named else (dtype, "")
    asked = {bits for bits, on in (("4bit", load_in_4bit), ("8bit", load_in_8bit), (wanted, wanted)) if on}
    if len(asked) > 1:
        raise RequestError("--load-in-4bit and --load-in-8bit exclude each other; give one")
    bits = next(iter(asked), None)
    if bits not in (None, "4bit", "8bit"):
        raise RequestError(f"unknown quantization {quoted(bits)} after {dtype}; write 4bit or 8bit")
    if bits is not None and (find_spec("bitsandbytes") is None or find_spec("accelerate") is None):
        raise RequestError(f"--load-in-{bits} needs bitsandbytes and accelerate: pip install 'kvtune[quantization]'")
    return dtype, bits
