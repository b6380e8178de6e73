"""What a host does ahead of a vision tower, while the device is at work: images opened side by side, and resized."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from PIL import Image
from torch import Tensor

from kvtune.captioning.image_keys import open_image
from kvtune.models import VisionLanguageModel

_READERS = 8
"""Images opened at once at most."""

Prepared = tuple[list[Image.Image], dict[str, Tensor]]
"""Opened images, and inputs of the model made of them, as by :meth:`VisionLanguageModel.prepare_on_host`."""


class PreparedAhead:
    """Prepares one batch of images in the background, the one that is expected next.

    Parameters
    ----------
    prompt
        As for :meth:`VisionLanguageModel.prepare`.
    """

    def __init__(self, vlm: VisionLanguageModel, prompt: str | None) -> None:
        self._vlm, self._prompt = vlm, prompt
        self._expected: list[str] = []
        self._coming: Future[Prepared] | None = None

    def expect(self, contents: Sequence[str], images: Sequence[Image.Image | Path]) -> None:
        """Begin with these images, known by their contents; what was begun before is given up if it is another."""
        if list(contents) == self._expected:
            return
        if self._coming is not None:
            self._coming.cancel()
        self._expected, self._coming = list(contents), None
        if contents:
            self._coming = self._worker.submit(self._prepare, self._own, list(images))

    def take(self, contents: Sequence[str]) -> Prepared | None:
        """What was begun, if it is of these images in this order; waits for its end.

        Raises
        ------
        RequestError
            If an image cannot be read, or not be taken.
        """
        if self._coming is None or list(contents) != self._expected:
            return None
        coming, self._expected, self._coming = self._coming, [], None
        return coming.result()

    def _prepare(self, own: VisionLanguageModel, images: Sequence[Image.Image | Path]) -> Prepared:
        opened = list(self._readers.map(open_image, images))
        return opened, own.prepare_on_host(opened, self._prompt)

    @cached_property
    def _own(self) -> VisionLanguageModel:
        """The model with a processor of its own, for a tokenizer must not be used by two threads, nor copied by one of
        them."""
        own = copy.copy(self._vlm)
        object.__setattr__(own, "processor", copy.deepcopy(self._vlm.processor))
        return own

    @cached_property
    def _worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "prepare")

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1), "open")
