"""Memory that a model's weights take, from its configuration alone: does it fit, and which layers go on which card."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kvtune.errors import RequestError
from kvtune.hf import beside_decoder, text_decoder
from kvtune.models.family import Family
from kvtune.models.placement import place_layers

_GIB = 2**30
_ROOM = 1 * _GIB
"""GPU memory beside the weights without which not even one caption can be written."""


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of a model's weights.

    Attributes
    ----------
    layers
        Of each layer of the decoder.
    beside
        Of all else.
    decoder_layers
        Name of the module that holds the layers.
    dtype, quantization
        What they are of; see :func:`weight_bytes_of`.
    """

    layers: tuple[int, ...]
    beside: int
    decoder_layers: str
    dtype: torch.dtype
    quantization: str | None

    @property
    def total(self) -> int:
        """All of them."""
        return self.beside + sum(self.layers)

    @property
    def kind(self) -> str:
        """What they are of in words: ``float16, 4bit``."""
        return ", ".join(filter(None, (str(self.dtype).removeprefix("torch."), self.quantization)))


def weight_bytes_of(
    family: Family, config: Any, dtype: torch.dtype, quantization: str | None, stored: int | None = None
) -> WeightBytes:
    """Bytes that the weights of a model take. Raises RequestError if its decoder has no list of layers.

    Parameters
    ----------
    quantization
        ``4bit``, ``8bit``, None, or of a checkpoint that is quantized already, how.
    stored
        Bytes of all weights, where the checkpoint has them quantized already; matrices share what others leave.
    """
    with torch.device("meta"):
        model = family.model_class()(config)
    decoder = text_decoder(model)
    path = next(name for name, module in model.named_modules() if module is decoder.layers)
    as_it_is = beside_decoder(model)
    in_float32 = tuple(model._keep_in_fp32_modules_strict or ()) if dtype.itemsize == 2 else ()
    taken: defaultdict[int | None, float] = defaultdict(float)
    quantized: Counter[int | None] = Counter()
    others = 0
    for name, parameter in model.named_parameters():
        found = re.match(rf"{re.escape(path)}\.(\d+)\.", name)
        layer = int(found[1]) if found else None
        is_linear = parameter.ndim == 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight"))
        kept = name.startswith(in_float32)
        if is_linear and not kept and not name.startswith(as_it_is):
            quantized[layer] += parameter.numel()
            continue
        others += parameter.numel()
        taken[layer] += (4 if kept else dtype.itemsize) * parameter.numel()
    per_weight = {"4bit": 0.52, "8bit": 1.0}.get(quantization or "", dtype.itemsize)  # 4-bit with its scales
    if stored is not None:
        in_files = others * (getattr(config, "dtype", None) or dtype).itemsize
        per_weight = max(0, stored - in_files) / max(1, quantized.total())
    for layer, numbers in quantized.items():
        taken[layer] += per_weight * numbers
    layers = tuple(int(taken[layer]) for layer in range(len(decoder.layers)))
    return WeightBytes(layers, int(taken[None]), path, dtype, quantization)


def check_memory(source: str, target: torch.device, needed: WeightBytes) -> None:
    """Refuse a model whose weights do not fit into the free memory of a GPU."""
    free, total = torch.cuda.mem_get_info(target)
    wanted = needed.total + _ROOM
    if wanted > free:
        raise RequestError(
            f"{source} needs about {wanted / _GIB:.0f} GiB of GPU memory in {needed.kind}, and {target} has "
            f"{free / _GIB:.0f} of its {total / _GIB:.0f} GiB free; {smaller(needed.quantization)}"
        )


def spans_for(source: str, targets: Sequence[torch.device], needed: WeightBytes) -> list[range]:
    """Which layers of the decoder each of several devices is to have.

    Raises
    ------
    RequestError
        If the devices are more than layers, or their free memory is too small.
    """
    if len(targets) > len(needed.layers):
        raise RequestError(
            f"{source} has {len(needed.layers)} layers in its decoder, fewer than the {len(targets)} GPUs of a worker; "
            "give a smaller --gpus-per-worker"
        )
    on_gpus = all(target.type == "cuda" for target in targets)
    free = [torch.cuda.mem_get_info(target)[0] if on_gpus else needed.total + _ROOM for target in targets]
    room = [own - _ROOM - (needed.beside if card == 0 else 0) for card, own in enumerate(free)]
    spans = place_layers(needed.layers, room)
    if any(sum(needed.layers[layer] for layer in span) > own for span, own in zip(spans, room, strict=True)):
        there = ", ".join(f"{own / _GIB:.0f}" for own in free)
        raise RequestError(
            f"{source} needs about {(needed.total + len(targets) * _ROOM) / _GIB:.0f} GiB of GPU memory in "
            f"{needed.kind}, in whole layers, and {', '.join(map(str, targets))} have {there} GiB free; "
            f"give a larger --gpus-per-worker, or {smaller(needed.quantization)}"
        )
    return spans


def smaller(quantization: str | None) -> str:
    """What to do about a model that is too large."""
    several = ", or divide it among several with --gpus-per-worker" if torch.cuda.device_count() > 1 else ""
    less = {None: "add --load-in-4bit", "8bit": "take --load-in-4bit instead"}.get(quantization, "take a smaller model")
    return f"{less}, free the GPU, or choose another with --device{several}"
