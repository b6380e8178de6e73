"""Requests in, captions out: batches of rows, each with a method of its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import islice

import torch
from PIL import Image

from kvtune.captioning.request import Caption, CaptionRequest, cut
from kvtune.coco import load_image
from kvtune.errors import RequestError
from kvtune.methods.attach import attach
from kvtune.models import VisionLanguageModel


class Captioner:
    """Writes captions greedily.

    Parameters
    ----------
    vlm
        The model.
    prompt
        The question; None is the family's default.
    max_new_tokens
        Longest caption in tokens, at least 1; 512 in the CHAIR evaluations.
    batch_size
        Rows decoded together.
    """

    def __init__(
        self, vlm: VisionLanguageModel, prompt: str | None = None, max_new_tokens: int = 512, batch_size: int = 32
    ) -> None:
        if max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        self.vlm = vlm
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self._withdrawn: set[Hashable] = set()

    def run(self, requests: Iterable[CaptionRequest]) -> Iterator[Caption]:
        """Captions as they finish; ``requests`` is pulled from only when there is room for more.

        Raises
        ------
        RequestError
            If an image cannot be read or a method does not fit the model.
        """
        wanted = (request for request in requests if request.tag not in self._withdrawn)
        while batch := list(islice(wanted, self.batch_size)):
            yield from (caption for caption in self._batch(batch) if caption.tag not in self._withdrawn)

    def withdraw(self, tag: Hashable) -> None:
        """Give no captions for requests of ``tag`` any more."""
        self._withdrawn.add(tag)

    @torch.inference_mode()
    def _batch(self, batch: list[CaptionRequest]) -> list[Caption]:
        images = [r.image if isinstance(r.image, Image.Image) else load_image(r.image) for r in batch]
        inputs = self.vlm.prepare(images, self.prompt)
        stops = self.vlm.family.stop_sequences(self.vlm)
        with attach(self.vlm.hf_model, [request.method for request in batch]):
            output = self.vlm.hf_model.generate(**inputs, max_new_tokens=self.max_new_tokens)
        generated = output[:, -min(self.max_new_tokens, output.shape[1]) :]
        if "input_ids" in inputs:
            generated = output[:, inputs["input_ids"].shape[1] :]
        captions = []
        for request, tokens in zip(batch, generated.tolist(), strict=True):
            ids, reason = cut(tokens, self.vlm.eos_token_ids, stops) or (tokens, "length")
            captions.append(Caption(request.image_id, self.vlm.decode(ids), tuple(ids), reason, request.tag))
        return captions
