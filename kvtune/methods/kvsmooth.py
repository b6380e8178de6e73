"""KVSmooth: entropy-adaptive smoothing of the newest key and value towards those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import PromptFacts
from kvtune.methods.method import Method
from kvtune.methods.parameters import choice, end_layer, flag, number, start_layer, whole
from kvtune.methods.row_state import RowState, StepEnd, moved

if TYPE_CHECKING:
    from torch import Tensor


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

    lambda_ref: float = number(low=0, high=1, search=(0.0, 1.0, 0.05))
    queue_length: int = whole(15, low=1, search=(2, 64, None), log=True)
    clip_width: float = number(0.2, low=0, high=1, search=(0.0, 0.5, 0.05))
    start_layer: int = start_layer(3)
    end_layer: int = end_layer(31)
    adaptive: bool = flag(True)
    target: str = choice("kv", ("kv", "k", "attention_output"))

    def row_bytes(self, decoder: Decoder, prompt_tokens: int) -> int:
        """A queue for each layer, and the outputs before where those are smoothed."""
        numbers = self.queue_length * decoder.number_bytes
        if self.target == "attention_output":
            numbers += decoder.n_heads * decoder.head_dim * decoder.module.dtype.itemsize
        return decoder.n_layers * numbers

    @classmethod
    def row_state(cls, n_rows: int, decoder: Decoder, device: Any) -> KVSmoothRows:
        return KVSmoothRows(cls, n_rows, decoder, device)


class KVSmoothRows(RowState[KVSmooth]):
    """Entropy queues of a batch, and the outputs before where those are smoothed."""

    reads_entropy = True

    def __init__(self, kind: type[KVSmooth], n_rows: int, decoder: Decoder, device: Any) -> None:
        super().__init__(kind, n_rows, decoder, device)
        self._queue = EntropyQueue(decoder.n_layers, n_rows, device)
        self._outputs: dict[int, Tensor] = {}

    def set_rows(self, rows: Sequence[int], methods: Sequence[KVSmooth | None]) -> Tensor:
        index = super().set_rows(rows, methods)
        self._queue.start(
            index,
            self.parameter("queue_length")[index].long().clamp(min=1),
            max(method.queue_length if method else 1 for method in methods),
        )
        self.changes_output |= any(method and method.target == "attention_output" for method in methods)
        return index

    def begin(self, rows: Sequence[int], index: Tensor, prompts: Sequence[PromptFacts]) -> None:
        import torch

        if not self.changes_output:
            return
        outputs = torch.stack([prompt.outputs for prompt in prompts], dim=1)
        for layer in self.decoder.layers_here:
            output = outputs[layer]
            if layer not in self._outputs:
                self._outputs[layer] = output.new_zeros(self.acts.shape[1], *output.shape[1:])
            self._outputs[layer][index] = output

    def change_output(self, layer: int, output: Tensor, entropy: Tensor, generated: Tensor) -> Tensor:
        from kvtune.methods.lerp import lerp_

        on_output = self._target("attention_output") & generated
        factor = self._factor(entropy[None], slice(layer, layer + 1))[0] * on_output
        smoothed = lerp_(output, self._outputs[layer], factor[:, None, None])
        self._outputs[layer].copy_(smoothed)
        return smoothed

    def end_step(self, step: StepEnd) -> None:
        factor = self._factor(step.entropies(self.layers), slice(self.layers.start, self.layers.stop))
        factor = factor * step.generated
        self._queue.advance(step.generated)
        step.draw(self.layers, factor * ~self._target("attention_output"), factor * self._target("kv"))

    def smoothing(self, entropy: Tensor) -> Tensor:
        layers = slice(self.layers.start, self.layers.stop)
        return self._factor(entropy, layers).masked_fill(~self.acts[layers], float("nan"))

    def captured_with(self) -> Hashable:
        return super().captured_with(), self._queue.entries.data_ptr(), self._queue.entries.shape

    def reorder(self, index: Tensor) -> None:
        super().reorder(index)
        self._queue.reorder(index)
        self._outputs = {layer: moved(output, index) for layer, output in self._outputs.items()}

    def _target(self, name: str) -> Tensor:
        """[rows] bool: whose target is ``name``."""
        return self.parameter("target") == self._choices["target"].index(name)

    def _factor(self, entropy: Tensor, layers: slice) -> Tensor:
        share = self._queue.rank(entropy, layers)
        # A constant factor is a range of one point.
        reference, width = self.parameter("lambda_ref"), self.parameter("clip_width") * self.parameter("adaptive")
        low, high = reference - width, reference + width
        return share.maximum(low.to(share.dtype)).minimum(high.to(share.dtype)) * self.acts[layers]


class EntropyQueue:
    """One first-in-first-out queue per layer and row, each row with a length of its own.

    A row's entries stand in a ring of as many places as its length; places not yet filled hold infinity, which no
    entropy exceeds, so that they never count as smaller.
    """

    def __init__(self, n_layers: int, n_rows: int, device: Any) -> None:
        import torch

        self.lengths = torch.ones(n_rows, dtype=torch.long, device=device)
        self.seen = torch.zeros_like(self.lengths)
        self.entries = torch.full((n_layers, n_rows, 1), torch.inf, device=device)

    def start(self, rows: Tensor, lengths: Tensor, longest: int) -> None:
        """Empty the queues of ``rows`` (indices) and let each keep at most ``lengths`` entries (M, at least 1).

        ``longest`` is the greatest of ``lengths``, which the host must not ask a device for.
        """
        import torch

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
        return smaller / (self.seen + 1).minimum(self.lengths)

    def advance(self, rows: Tensor) -> None:
        """The step is over: the next entropies of ``rows``, bool, take the next place, those of others the same."""
        self.seen += rows

    def reorder(self, index: Tensor) -> None:
        """Row ``i`` becomes what row ``index[i]`` was."""
        self.lengths, self.seen = moved(self.lengths, index), moved(self.seen, index)
        self.entries = moved(self.entries, index, axis=1)
