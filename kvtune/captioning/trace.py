"""One caption looked into: the row entropies, smoothing factors and logits of words, token by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from kvtune.captioning.greedy import NO_TOKEN, choose, no_numbers
from kvtune.captioning.image_keys import open_image
from kvtune.captioning.request import Caption, cut
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import Method
from kvtune.methods.attach import attach
from kvtune.models import VisionLanguageModel
from kvtune.models.prompt_ids import word_ids


@dataclasses.dataclass(frozen=True)
class Word:
    """A word as the model spells it in the middle of a sentence.

    Attributes
    ----------
    text
        The word, or words.
    token_id, token
        Its first token, whose logit stands for the word, by number and as the vocabulary has it.
    is_whole
        Whether that token is the whole word; if not, words of the same beginning share it and cannot be told apart.
    """

    text: str
    token_id: int
    token: str
    is_whole: bool


@dataclasses.dataclass(frozen=True)
class Trace:
    """A caption and what happened at each of its tokens.

    Attributes
    ----------
    caption
        What was written.
    token_ids, tokens
        All that was generated, the end of text or stop sequence included, by number and as the vocabulary has it.
    starts
        Where in the caption's text each token's own begins, in characters; the text's length from the end on.
    entropy
        [tokens, layers]: row entropy (natural log, mean over heads) of the token's attention, when the token is read
        to write the next one. NaN for the last token, which is not read any more.
    smoothing
        [tokens, layers]: the factor by which the token was smoothed towards the one before, in the same step; NaN
        where nothing is smoothed.
    words
        What ``ranks`` and ``logits`` are about.
    ranks, logits
        [tokens, words]: of each word's first token in the distribution from which the token was chosen; rank 1 is the
        token that greedy decoding takes.
    """

    caption: Caption
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    starts: tuple[int, ...]
    entropy: np.ndarray
    smoothing: np.ndarray
    words: tuple[Word, ...]
    ranks: np.ndarray
    logits: np.ndarray


def spelt(vlm: VisionLanguageModel, words: Sequence[str]) -> tuple[Word, ...]:
    """How the model spells words.

    Raises
    ------
    RequestError
        If its vocabulary cannot spell one.
    """
    found = spellable(vlm, words)
    for text in words:
        if text not in (word.text for word in found):
            raise RequestError(f"{vlm.name} has no word {text!r} in its vocabulary; name another object")
    return found


def spellable(vlm: VisionLanguageModel, words: Sequence[str]) -> tuple[Word, ...]:
    """How the model spells those of the words that its vocabulary can."""
    tokenizer = vlm.tokenizer
    found = []
    for text in words:
        ids = word_ids(tokenizer, text)
        if ids and tokenizer.unk_token_id not in ids:
            found.append(Word(text, ids[0], tokenizer.convert_ids_to_tokens(ids[0]), len(ids) == 1))
    return tuple(found)


@torch.inference_mode()
def trace_caption(
    vlm: VisionLanguageModel,
    image: Image.Image | Path,
    method: Method | None,
    words: Sequence[Word],
    prompt: str | None = None,
    max_new_tokens: int = 512,
) -> Trace:
    """Write one caption with ``generate()`` under the method, and look on.

    Raises
    ------
    RequestError
        If the image cannot be read or the method does not fit the model.
    KvtuneError
        If the model's logits are no numbers.
    """
    inputs = vlm.prepare([open_image(image)], prompt)
    stops = vlm.family.stop_sequences(vlm)
    steps: list[tuple[Tensor, Tensor]] = []
    scores = _WordScores(
        torch.tensor([word.token_id for word in words], dtype=torch.long, device=vlm.device),
        no_numbers(str(image) if isinstance(image, Path) else "the image", vlm.dtype_name),
    )
    with attach(vlm.hf_model, [method], lambda entropy, smoothing: steps.append((entropy[:, 0], smoothing[:, 0]))):
        output = vlm.hf_model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([scores]),
            stopping_criteria=StoppingCriteriaList([_Stops(stops)] if stops else []),
        )
    written = output[0, inputs["input_ids"].shape[1] :].tolist()
    ids, reason = cut(written, vlm.eos_token_ids, stops) or (written, "length")
    caption = Caption(0, vlm.decode(ids), tuple(ids), reason)
    entropy = np.full((len(written), vlm.n_layers), np.nan)
    smoothing = entropy.copy()
    for place, (entropies, factors) in enumerate(steps):
        entropy[place], smoothing[place] = entropies.cpu().numpy(), factors.cpu().numpy()
    return Trace(
        caption=caption,
        token_ids=tuple(written),
        tokens=tuple(vlm.tokenizer.convert_ids_to_tokens(written)),
        starts=_starts(vlm, caption, len(written)),
        entropy=entropy,
        smoothing=smoothing,
        words=tuple(words),
        ranks=torch.stack(scores.ranks).cpu().numpy(),
        logits=torch.stack(scores.logits).cpu().numpy(),
    )


class _WordScores(LogitsProcessor):
    """Notes rank and logit of some tokens in each step's distribution, and leaves it as it is.

    Raises an error where ``generate()`` would take any token of a distribution that has no highest.
    """

    def __init__(self, token_ids: Tensor, error: KvtuneError) -> None:
        self.token_ids, self.error = token_ids, error
        self.ranks: list[Tensor] = []
        self.logits: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if choose(scores).item() == NO_TOKEN:
            raise self.error
        logits = scores[0, self.token_ids]
        ascending = scores[0].sort().values
        self.ranks.append(len(ascending) + 1 - torch.searchsorted(ascending, logits, right=True))
        self.logits.append(logits)
        return scores


class _Stops(StoppingCriteria):
    """Ends a text at the family's stop sequences, as the engine does."""

    def __init__(self, stops: Sequence[Sequence[int]]) -> None:
        self.stops = [list(stop) for stop in stops]

    def __call__(self, input_ids: Any, scores: Any, **keywords: Any) -> Any:
        written = input_ids[0].tolist()
        is_done = any(written[-len(stop) :] == stop for stop in self.stops)
        return torch.tensor([is_done], device=input_ids.device)


def _starts(vlm: VisionLanguageModel, caption: Caption, tokens: int) -> tuple[int, ...]:
    """Where each token's text begins, by how long the text is that the tokens before it spell."""
    starts, at = [], 0
    for place in range(tokens):
        starts.append(at if place < len(caption.token_ids) else len(caption.text))
        text = vlm.decode(caption.token_ids[: place + 1])
        if caption.text.startswith(text):  # not in the middle of a character of several tokens
            at = len(text)
    return tuple(starts)
