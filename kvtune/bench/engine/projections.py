"""Linear layers of a decoder layer that read the same input: one product each, and one product for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kvtune.bench.engine.device import seconds_of

ROWS = (384, 640, 768, 896)
"""Rows of a step, as grids of 80 GB have them."""

LLAVA_7B = {"q, k, v": (4096, (4096, 4096, 4096)), "gate, up": (4096, (11008, 11008))}
"""Width of the input and of each output."""

SMALL = {"q, k, v": (32, (32, 16, 16)), "gate, up": (32, (48, 48))}

_COPIES = 6
"""Layers whose weights are read in turn: more than a cache of 60 MB holds, as in a step."""


def projections(
    device: torch.device, dtype: torch.dtype, shapes: dict[str, tuple[int, Sequence[int]]], rows: Sequence[int] = ROWS
) -> Iterator[dict[str, Any]]:
    """For each shape and number of rows, milliseconds of a layer's products one by one and as one, and their ratio."""
    for name, (width, outputs) in shapes.items():
        together = [torch.randn(sum(outputs), width, device=device).to(dtype) for _ in range(_COPIES)]
        apart = [weight.split(list(outputs)) for weight in together]
        for count in rows:
            hidden = torch.randn(count, width, device=device).to(dtype)

            def one_by_one(hidden: torch.Tensor = hidden, apart: Any = apart) -> None:
                for layer in apart:
                    for weight in layer:
                        torch.nn.functional.linear(hidden, weight)

            def as_one(hidden: torch.Tensor = hidden, together: Any = together) -> None:
                for weight in together:
                    torch.nn.functional.linear(hidden, weight)

            times = {"apart_ms": one_by_one, "together_ms": as_one}
            ms = {what: 1e3 * _seconds(run, device) / _COPIES for what, run in times.items()}
            yield {"projections": name, "rows": count, **ms, "ratio": ms["together_ms"] / ms["apart_ms"]}


def _seconds(run: Any, device: torch.device) -> float:
    """The median of some runs, eight in one go each on a GPU, so that no launch is waited for."""
    several = 8 if device.type == "cuda" else 1

    def runs() -> None:
        for _ in range(several):
            run()

    return sorted(seconds_of(runs, device) / several for _ in range(5))[2]
