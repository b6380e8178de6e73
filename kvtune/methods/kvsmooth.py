"""KVSmooth: entropy-adaptive smoothing of the newest key and value towards those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kvtune.errors import RequestError
from kvtune.methods.method import Method
from kvtune.methods.row_state import RowState
from kvtune.methods.sending import to_device
from kvtune.methods.smoothing import lerp_
from kvtune.text import quoted

Target = Literal["kv", "k", "attention_output"]


@dataclasses.dataclass(frozen=True)
class KVSmooth(Method):
    """KVSmooth: after each decode step, an exponential moving average over keys and values in the cache.

    The factor of a token follows the entropy of its attention: the share of the last ``queue_length`` tokens whose
    attention was less diffuse, clipped to ``lambda_ref`` +- ``clip_width`` (algorithm 2 of the paper; prompt tokens are
    never touched).

    Parameters
    ----------
    lambda_ref
        Centre of the smoothing factor, 0 to 1. The paper's section 5.1: 0.9 for LLaVA-1.5, 0.5 for MiniGPT-4, 0.7 for
        InstructBLIP.
    queue_length
        Entropies remembered per caption and layer (M), at least 1; 15 in the paper.
    clip_width
        Half-width of the range of factors (w), 0 to 1; 0.2 in the paper.
    start_layer, end_layer
        Layers ``start_layer <= l < end_layer`` are smoothed, 0-based, end excluded; the paper's "3-31" of 32 leaves
        out the first three and the last.
    adaptive
        False uses ``lambda_ref`` for every token (the paper's "w/o Ada.").
    target
        ``"kv"`` is the method; ``"k"`` smooths keys alone and ``"attention_output"`` the per-head attention output
        before the output projection, with keys and values left alone (the paper's table 4).
    """

    name: ClassVar[str] = "kvsmooth"

    lambda_ref: float
    queue_length: int = 15
    clip_width: float = 0.2
    start_layer: int = 3
    end_layer: int = 31
    adaptive: bool = True
    target: Target = "kv"

    def __post_init__(self) -> None:
        for field in ("lambda_ref", "clip_width"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise RequestError(f"{field} must be a number from 0 to 1, not {quoted(value)}")
        for field, least in (("queue_length", 1), ("start_layer", 0)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise RequestError(f"{field} must be a whole number of at least {least}, not {quoted(value)}")
        if isinstance(self.end_layer, bool) or not isinstance(self.end_layer, int):
            raise RequestError(f"end_layer must be a whole number, not {quoted(self.end_layer)}")
        if self.end_layer <= self.start_layer:
            raise RequestError(
                f"end_layer must be greater than start_layer, but the range is {self.start_layer} to {self.end_layer}"
            )
        if not isinstance(self.adaptive, bool):
            raise RequestError(f"adaptive must be true or false, not {quoted(self.adaptive)}")
        if self.target not in get_args(Target):
            raise RequestError(f"target must be one of {', '.join(get_args(Target))}, not {quoted(self.target)}")

    def check_layers(self, n_layers: int) -> None:
        """Raise RequestError if the layer range reaches beyond a decoder of ``n_layers`` layers."""
        if self.end_layer > n_layers:
            raise RequestError(
                f"layers {self.start_layer} to {self.end_layer} reach outside the model, which has {n_layers}; "
                f"end_layer can be at most {n_layers}"
            )

    @classmethod
    def row_state(cls, n_rows: int, n_layers: int, device: Any) -> KVSmoothRows:
        """State for a batch of rows, each with parameters of its own."""
        return KVSmoothRows(n_rows, n_layers, device)


class KVSmoothRows(RowState):
    """Parameters and entropy queues of a batch, as tensors, so that each row may have parameters of its own."""

    def __init__(self, n_rows: int, n_layers: int, device: Any) -> None:
        self.layers = range(0)
        # float64, so that lambda_ref - clip_width is what Python's own numbers give.
        self._low = torch.zeros(n_rows, dtype=torch.float64, device=device)
        self._high = torch.zeros_like(self._low)
        self._in_layers = torch.zeros(n_layers, n_rows, dtype=torch.bool, device=device)
        self._on_keys = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self._on_values = torch.zeros_like(self._on_keys)
        self._on_output = torch.zeros_like(self._on_keys)
        self._smooths_output = False
        self._queue = EntropyQueue(n_layers, n_rows, device)
        self._outputs: dict[int, Tensor] = {}

    def set_rows(self, rows: Sequence[int], methods: Sequence[KVSmooth | None]) -> None:
        targets = [m.target if m else None for m in methods]
        lengths = [m.queue_length if m else 1 for m in methods]
        # float64 holds all of these exactly, so that one copy brings them.
        numbers = to_device(
            np.array(
                [
                    list(rows),
                    [m.start_layer if m else 0 for m in methods],
                    [m.end_layer if m else 0 for m in methods],
                    lengths,
                    [t in ("kv", "k") for t in targets],
                    [t == "kv" for t in targets],
                    [t == "attention_output" for t in targets],
                    *zip(*map(_bounds, methods), strict=True),
                ],
                dtype=np.float64,
            ),
            self._low.device,
        )
        index, start, end, queue_lengths = numbers[:4].long()
        self._on_keys[index], self._on_values[index], self._on_output[index] = numbers[4:7].bool()
        self._low[index], self._high[index] = numbers[7:]
        layers = torch.arange(len(self._in_layers), device=index.device)[:, None]
        self._in_layers[:, index] = (layers >= start) & (layers < end)
        self._smooths_output |= "attention_output" in targets
        self._queue.start(index, queue_lengths, max(lengths))
        smoothed = [range(m.start_layer, m.end_layer) for m in methods if m]
        if smoothed:
            known = [self.layers] if self.layers else []
            self.layers = range(min(r.start for r in smoothed + known), max(r.stop for r in smoothed + known))

    @property
    def smooths_output(self) -> bool:
        return self._smooths_output

    def start_outputs(self, rows: Tensor, layer: int, output: Tensor) -> None:
        if layer not in self._outputs:
            self._outputs[layer] = output.new_zeros(len(self._low), *output.shape[1:])
        self._outputs[layer][rows] = output

    def smooth_output(self, layer: int, entropy: Tensor, output: Tensor) -> Tensor:
        factor = self._factor(entropy[None], slice(layer, layer + 1))[0] * self._on_output
        smoothed = lerp_(output, self._outputs[layer], factor[:, None, None])
        self._outputs[layer].copy_(smoothed)
        return smoothed

    def factors(self, entropy: Tensor) -> tuple[Tensor, Tensor]:
        factor = self._factor(entropy, slice(self.layers.start, self.layers.stop))
        self._queue.advance()
        return factor * self._on_keys, factor * self._on_values

    def smoothing(self, entropy: Tensor) -> Tensor:
        layers = slice(self.layers.start, self.layers.stop)
        return self._factor(entropy, layers).masked_fill(~self._in_layers[layers], torch.nan)

    def captured_with(self) -> Hashable:
        return self.layers, self._smooths_output, self._queue.entries.data_ptr(), self._queue.entries.shape

    def reorder(self, index: Tensor) -> None:
        index = index.to(self._low.device)
        for field in ("_low", "_high", "_on_keys", "_on_values", "_on_output"):
            setattr(self, field, moved(getattr(self, field), index))
        self._in_layers = moved(self._in_layers, index, axis=1)
        self._queue.reorder(index)
        self._outputs = {layer: moved(output, index) for layer, output in self._outputs.items()}

    def _factor(self, entropy: Tensor, layers: slice) -> Tensor:
        share = self._queue.rank(entropy, layers)
        factor = torch.minimum(torch.maximum(share, self._low.to(share.dtype)), self._high.to(share.dtype))
        return factor * self._in_layers[layers]


def _bounds(method: KVSmooth | None) -> tuple[float, float]:
    """The range to which the share of smaller entropies is clipped; a constant factor is a range of one point."""
    if method is None:
        return 0.0, 0.0
    if not method.adaptive:
        return method.lambda_ref, method.lambda_ref
    return method.lambda_ref - method.clip_width, method.lambda_ref + method.clip_width


class EntropyQueue:
    """One first-in-first-out queue per layer and row, each row with a length of its own.

    A row's entries stand in a ring of as many places as its length; places not yet filled hold infinity, which no
    entropy exceeds, so that they never count as smaller.
    """

    def __init__(self, n_layers: int, n_rows: int, device: Any) -> None:
        self.lengths = torch.ones(n_rows, dtype=torch.long, device=device)
        self.seen = torch.zeros_like(self.lengths)
        self.entries = torch.full((n_layers, n_rows, 1), torch.inf, device=device)

    def start(self, rows: Tensor, lengths: Tensor, longest: int) -> None:
        """Empty the queues of ``rows`` (indices) and let each keep at most ``lengths`` entries (M, at least 1).

        ``longest`` is the greatest of ``lengths``, which the host must not ask a device for.
        """
        missing = longest - self.entries.shape[2]
        if missing > 0:
            self.entries = torch.nn.functional.pad(self.entries, (0, missing), value=torch.inf)
        self.lengths[rows] = lengths
        self.seen[rows] = 0
        self.entries[:, rows] = torch.inf

    def rank(self, entropy: Tensor, layers: slice) -> Tensor:
        """Put this step's entropies in, and return the share of each queue that is strictly smaller.

        Calling it again before :meth:`advance` replaces what was put in.

        Parameters
        ----------
        entropy
            [layers, rows].
        layers
            The layers that ``entropy`` is about.

        Returns
        -------
        Tensor
            [layers, rows] in [0, 1): entries smaller than this one over entries in the queue, itself included.
        """
        if self.entries.dtype != entropy.dtype:
            self.entries = self.entries.to(entropy.dtype)
        entries = self.entries[layers]
        place = (self.seen % self.lengths)[None, :, None].expand(len(entropy), -1, 1)
        entries.scatter_(2, place, entropy[..., None])
        smaller = (entries < entropy[..., None]).sum(-1, dtype=entropy.dtype)
        return smaller / torch.minimum(self.seen + 1, self.lengths)

    def advance(self) -> None:
        """The step is over: the next entropies take the next place."""
        self.seen += 1

    def reorder(self, index: Tensor) -> None:
        """Row ``i`` becomes what row ``index[i]`` was."""
        self.lengths, self.seen = moved(self.lengths, index), moved(self.seen, index)
        self.entries = moved(self.entries, index, axis=1)


def moved(tensor: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    """``tensor`` with its rows in the order of ``index``: in place if they stay as many, as a CUDA graph needs it."""
    taken = tensor.index_select(axis, index)
    return tensor.copy_(taken) if taken.shape == tensor.shape else taken
