"""From a template to token ids: segments tokenised apart, image tokens between them, rows padded on the left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.models import BPE
from torch import Tensor

from kvtune.errors import RequestError

SPACE = "▁"
"""SentencePiece's mark for a space."""

OWN_TOKEN = "the prompt must not contain the image's own token; the image's place is in the template"
"""Why a question is refused."""


def is_sentencepiece(tokenizer: Any) -> bool:
    """Whether this is a byte-pair tokenizer in SentencePiece's manner, as Llama 1, Llama 2, Vicuna and Mistral have."""
    backend = tokenizer.backend_tokenizer
    return isinstance(backend.model, BPE) and backend.token_to_id(SPACE) is not None


def segment_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of a prompt, no special tokens added.

    The evaluations tokenise the text before and after an image apart, with SentencePiece itself. It puts a space before
    every text that it is given and keeps the spaces there are, so " Please" after an image becomes "▁▁", "Please".
    The tokenizers that transformers builds put that space only at some places, which ones differing between versions
    and with ``legacy``; so the byte-pair model is asked here directly.
    """
    if not text:
        return []
    if is_sentencepiece(tokenizer):
        return [token.id for token in tokenizer.backend_tokenizer.model.tokenize(SPACE + text.replace(" ", SPACE))]
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def word_ids(tokenizer: Any, word: str) -> list[int]:
    """Token ids of a word as it stands in the middle of a sentence, after a space."""
    return segment_ids(tokenizer, word if is_sentencepiece(tokenizer) else f" {word}")


def prompt_rows(
    rows: Sequence[tuple[list[int], int, list[int]]], image_token_id: int, pad_token_id: int | None
) -> dict[str, Tensor]:
    """Inputs of a batch, padded on the left.

    Parameters
    ----------
    rows
        For each, the ids before the image, the number of its visual tokens, and the ids after it.

    Returns
    -------
    dict
        ``input_ids`` and ``attention_mask``, both [rows, longest prompt].

    Raises
    ------
    RequestError
        If the prompt's own text has the image token in it.
    """
    if any(image_token_id in before or image_token_id in after for before, _, after in rows):
        raise RequestError(OWN_TOKEN)
    full = [[*before, *[image_token_id] * count, *after] for before, count, after in rows]
    longest = max(map(len, full))
    ids = torch.full((len(full), longest), pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(full):
        ids[row, longest - len(tokens) :] = torch.tensor(tokens)
        mask[row, longest - len(tokens) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def some_rows(
    inputs: dict[str, Tensor], visual_tokens: Sequence[int], begin: int, end: int
) -> dict[str, Tensor] | None:
    """Inputs of the rows from ``begin`` to ``end`` of a batch, without the padding that only others need.

    Pixels come by rows, or one after the other as patches or tiles, of which each makes as many visual tokens.

    Parameters
    ----------
    visual_tokens
        Of each row of the batch.

    Returns
    -------
    dict or None
        None if it is not known which pixels are whose.
    """
    ids = inputs["input_ids"]
    if (begin, end) == (0, len(ids)):
        return inputs
    padding = ids.shape[1] - int(inputs["attention_mask"][begin:end].sum(1).max())
    total = sum(visual_tokens)
    found = {}
    for name, value in inputs.items():
        if len(value) == len(ids):
            found[name] = value[begin:end, padding:] if value.shape == ids.shape else value[begin:end]
        elif any(len(value) * count % total for count in visual_tokens):
            return None
        else:
            first, last = (len(value) * sum(visual_tokens[:row]) // total for row in (begin, end))
            found[name] = value[first:last]
    return found


def chat_segments(tokenizer: Any, template: str, image_token: str, prompt: str) -> tuple[list[int], list[int]]:
    """Ids before and after the image in a checkpoint's own chat template: one user's turn with image and question.

    Tokenised in one piece, as transformers does it.
    """
    question = [{"type": "image"}, {"type": "text", "text": prompt}]
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], chat_template=template, tokenize=False, add_generation_prompt=True
    )
    has_bos = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    ids: list[int] = tokenizer(text, add_special_tokens=not has_bos).input_ids
    image_token_id = tokenizer.convert_tokens_to_ids(image_token)
    if image_token_id not in ids:
        raise RequestError(f"the checkpoint's chat template puts no {image_token} for an image")
    place = ids.index(image_token_id)
    return ids[:place], ids[place + 1 :]


def find_chat_template(folder: Path, tokenizer: Any) -> str | None:
    """The chat template that a checkpoint ships: its processor's, else its tokenizer's."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        template: str = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
        return template
    return tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
