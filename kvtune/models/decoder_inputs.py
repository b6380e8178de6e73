"""What a model hands its text decoder for a prompt with its image: taken apart by prompt, and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from copy import copy as copy_object
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kvtune.errors import RequestError
from kvtune.hf import CACHE_NAMES, rotary_positions
from kvtune.methods.sending import sent, to_device

_MEANT_FOR_OUTPUT = frozenset(
    {"use_cache", "return_dict", "output_attentions", "output_hidden_states", "output_router_logits", "logits_to_keep"}
)
"""Arguments that say what a decoder is to return, and nothing about what it computes."""

_READ = frozenset({"inputs_embeds", "input_ids", "attention_mask", "position_ids", *CACHE_NAMES})
_DEEPSTACK_MASK, _DEEPSTACK = "visual_pos_masks", "deepstack_visual_embeds"
"""Qwen3-VL's names: features of the image that are added to the hidden states of the first layers, and where."""


@dataclasses.dataclass(frozen=True)
class VisualTokens:
    """Where in a prompt an image is, and where in the picture its tokens are.

    Attributes
    ----------
    mask
        [prompt tokens], true for a visual token.
    places
        [visual tokens, 2], float32: the centre of what a token stands for, to the right and down in the picture that
        the model sees, both in [0, 1]; NaN for a visual token that stands for no part of it, as LLaVA-NeXT's line ends.
        None where tokens have no places, as in a Q-Former, or where they are not known.
    """

    mask: Tensor
    places: Tensor | None

    def __post_init__(self) -> None:
        if self.places is not None and len(self.places) != int(self.mask.sum()):
            raise RequestError(f"{len(self.places)} places were given for {int(self.mask.sum())} visual tokens")

    @property
    def first(self) -> int:
        """Position of the first visual token, which is the number of tokens before the image; 0 if there is none."""
        return int(self.mask.int().argmax())

    @property
    def end(self) -> int:
        """Position of the first token after the last visual one; 0 if there is none."""
        return int(self.mask.nonzero()[-1]) + 1 if self.mask.any() else 0

    def moved(self, move: Callable[[Tensor], Tensor]) -> VisualTokens:
        """The same elsewhere: what ``move`` gives of each tensor."""
        other = copy_object(self)  # which has been checked; again, it would be waited for
        object.__setattr__(other, "mask", move(self.mask))
        object.__setattr__(other, "places", None if self.places is None else move(self.places))
        return other


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One image's prompt, ready for the decoder.

    Attributes
    ----------
    embeddings
        [prompt tokens, width], visual ones included.
    positions
        Rotary positions, [prompt tokens], or [axes, prompt tokens].
    next_position
        The rotary position of the first token of a caption, from where they count up by one.
    visual
        Which tokens are visual, and their places in the picture.
    after_image
        Ids of the tokens after the last visual one.
    deepstack
        Features that are added to the hidden states of visual tokens after each of the first layers,
        [layers, visual tokens, width]; None for models without.
    attention
        Kind of layer (as in the configuration's ``layer_types``, or "" for all) -> who sees whom in the prompt,
        [prompt tokens, prompt tokens], the second axis seen by the first; empty where each token sees those up to it.
    is_causal_after_image
        Whether no token after the image sees a later one, as where a row may run those tokens one by one.
    """

    embeddings: Tensor
    positions: Tensor
    next_position: int
    visual: VisualTokens
    after_image: tuple[int, ...]
    deepstack: Tensor | None = None
    attention: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    is_causal_after_image: bool = True

    @property
    def length(self) -> int:
        return len(self.embeddings)

    @property
    def tensors(self) -> list[Tensor]:
        """All that it holds."""
        own = [self.embeddings, self.positions, self.visual.mask, self.visual.places, self.deepstack]
        return [tensor for tensor in (*own, *self.attention.values()) if tensor is not None]

    @property
    def nbytes(self) -> int:
        """Memory of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def moved(self, move: Callable[[Tensor], Tensor]) -> Prompt:
        """The same elsewhere: what ``move`` gives of each tensor."""
        return dataclasses.replace(
            self,
            embeddings=move(self.embeddings),
            positions=move(self.positions),
            visual=self.visual.moved(move),
            deepstack=None if self.deepstack is None else move(self.deepstack),
            attention={kind: move(mask) for kind, mask in self.attention.items()},
        )

    def to(self, device: torch.device) -> Prompt:
        """The same on ``device``."""
        return self.moved(lambda tensor: sent(tensor, device))


def taken_apart(
    prompt: Mapping[str, Any],
    following: Mapping[str, Any],
    ids: Tensor,
    mask: Tensor,
    visual: Sequence[VisualTokens],
    model: str,
) -> list[Prompt]:
    """The prompts of a batch, from the arguments of the decoder.

    Parameters
    ----------
    prompt, following
        What the decoder was called with for the prompts, padded on the left, and then for one more token each.
    ids, mask
        [rows, tokens], the prompts' ids and 0 for padding, in the host's memory, where they are looked at.
    visual
        One a row, there too.
    model
        What to call the model in a refusal.

    Raises
    ------
    RequestError
        If there is an argument that is not known here, for what it does would be lost.
    """
    _refuse_unknown(prompt, {*_READ, _DEEPSTACK_MASK, _DEEPSTACK}, model)
    _refuse_unknown(following, _READ, model)
    lengths = mask.sum(1).tolist()
    embeddings = prompt["inputs_embeds"]
    rows, tokens = embeddings.shape[:2]
    positions = _positions(prompt, rows, 0, tokens)
    after = _positions(following, rows, tokens, 1)[..., 0]
    if after.ndim > 1 and not (after == after[-1]).all():
        raise RequestError(f"{model} is not supported: positions of generated text differ between its axes")
    next_positions = (after if after.ndim == 1 else after[-1]).tolist()
    deepstack = _deepstack(prompt, visual, model)
    attention = _attention(prompt.get("attention_mask"))
    prompts = []
    for row, begin in enumerate(tokens - length for length in lengths):
        after_image = begin + visual[row].end
        text = [seen[row, after_image:, after_image:] for seen in attention.values()]
        prompts.append(
            Prompt(
                embeddings[row, begin:],
                positions[..., row, begin:],
                next_positions[row],
                visual[row].moved(lambda tensor: sent(tensor, embeddings.device)),
                tuple(ids[row, after_image:].tolist()),
                deepstack[row],
                {kind: seen[row, begin:, begin:] for kind, seen in attention.items()},
                not any(seen.triu(1).any() for seen in text),
            )
        )
    return prompts


def put_together(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The arguments of the decoder for prompts as one batch, padded on the left; the way back of :func:`taken_apart`.

    All are prompts of one model.
    """
    longest = max(prompt.length for prompt in prompts)
    missing = [longest - prompt.length for prompt in prompts]
    each = list(zip(prompts, missing, strict=True))
    device = prompts[0].embeddings.device
    arguments: dict[str, Any] = {
        "inputs_embeds": torch.stack([pad(prompt.embeddings, (0, 0, n, 0)) for prompt, n in each]),
        "position_ids": torch.stack([pad(prompt.positions, (n, 0)) for prompt, n in each], dim=-2),
    }
    if any(missing):  # a mask that hides nothing would be looked at, and waited for
        begins = to_device(np.array(missing), device)[:, None]
        arguments["attention_mask"] = (torch.arange(longest, device=device) >= begins).long()
    kinds = {kind for prompt in prompts for kind in prompt.attention}
    if kinds:
        seen = {kind: torch.stack([_padded(prompt, kind, n) for prompt, n in each])[:, None] for kind in kinds}
        arguments["attention_mask"] = seen.get("", seen)
    features = [prompt.deepstack for prompt in prompts if prompt.deepstack is not None]
    if features:
        arguments[_DEEPSTACK_MASK] = torch.stack([pad(prompt.visual.mask, (n, 0)) for prompt, n in each])
        arguments[_DEEPSTACK] = list(torch.cat(features, dim=1))
    return arguments


def _refuse_unknown(arguments: Mapping[str, Any], known: frozenset[str] | set[str], model: str) -> None:
    unknown = sorted(arguments.keys() - known - _MEANT_FOR_OUTPUT)
    if unknown:
        raise RequestError(
            f"{model} is not supported: it hands its text decoder {', '.join(unknown)}, of which kvtune knows nothing"
        )


def _positions(arguments: Mapping[str, Any], rows: int, past: int, tokens: int) -> Tensor:
    """[rows, tokens] or [axes, rows, tokens]; a decoder that is given none counts from the cache on."""
    device = arguments[next(name for name in ("inputs_embeds", "input_ids") if name in arguments)].device
    positions = arguments.get("position_ids")
    if positions is None:
        positions = torch.arange(past, past + tokens, device=device)[None]
    positions = rotary_positions(positions)
    return positions.expand(*positions.shape[:-2], rows, tokens)


def _deepstack(arguments: Mapping[str, Any], visual: Sequence[VisualTokens], model: str) -> list[Tensor | None]:
    if _DEEPSTACK not in arguments:
        return [None] * len(visual)
    features = torch.stack(list(arguments[_DEEPSTACK]))
    counts = [int(one.mask.sum()) for one in visual]
    if features.shape[1] != sum(counts) or int(arguments[_DEEPSTACK_MASK].sum()) != sum(counts):
        raise RequestError(f"{model} is not supported: it adds features to tokens that are not the image's")
    return list(features.split(counts, dim=1))


def _attention(mask: Any) -> dict[str, Tensor]:
    """Who sees whom, [rows, tokens, tokens] by kind of layer, where a model has made that itself of its padding."""
    if isinstance(mask, Mapping):  # a kind without a mask is causal
        return {kind: _seen(one) for kind, one in mask.items() if one is not None}
    if mask is None or mask.ndim == 2:
        return {}
    return {"": _seen(mask)}


def _seen(mask: Tensor) -> Tensor:
    """[rows, tokens, tokens], true where a token is seen, of a mask with one axis of heads, boolean or additive."""
    return mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0


def _padded(prompt: Prompt, kind: str, missing: int) -> Tensor:
    """Who sees whom with padding on the left, which sees itself, for a softmax over nothing is no number."""
    seen = prompt.attention.get(kind)
    if seen is None:
        seen = prompt.embeddings.new_ones(prompt.length, prompt.length, dtype=torch.bool).tril()
    padded = pad(seen, (missing, 0, missing, 0))
    padded.diagonal()[:missing] = True
    return padded
