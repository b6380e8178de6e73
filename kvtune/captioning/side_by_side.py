"""Captions of a few images without a method and with one, as ``kvtune caption`` shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.open import AnyCaptioner
from kvtune.captioning.request import Caption, CaptionRequest
from kvtune.captioning.trace import Trace, Word, trace_caption
from kvtune.methods import Method


@dataclasses.dataclass(frozen=True)
class Pair:
    """One image's captions; ``treated`` is None where no method was given."""

    image: Path
    baseline: Caption
    treated: Caption | None


@dataclasses.dataclass(frozen=True)
class TracedPair:
    """One image's captions, looked into; ``treated`` is None where no method was given."""

    image: Path
    baseline: Trace
    treated: Trace | None

    @property
    def captions(self) -> Pair:
        """The captions alone."""
        return Pair(self.image, self.baseline.caption, self.treated.caption if self.treated else None)


def caption_pairs(captioner: AnyCaptioner, images: Sequence[Path], method: Method | None) -> list[Pair]:
    """Caption each image twice, in one run.

    Raises
    ------
    RequestError
        If an image cannot be read or the method does not fit the model.
    """
    methods = [None, method] if method is not None else [None]
    requests = (
        CaptionRequest(number, image, one, (number, one is not None))
        for number, image in enumerate(images)
        for one in methods
    )
    written = {caption.tag: caption for caption in captioner.run(requests)}
    return [Pair(image, written[number, False], written.get((number, True))) for number, image in enumerate(images)]


def trace_pairs(
    captioner: Captioner, images: Sequence[Path], method: Method | None, words: Sequence[Word]
) -> list[TracedPair]:
    """Caption each image twice, one caption after the other, noting logits and ranks of ``words``.

    Raises
    ------
    RequestError
        As :func:`caption_pairs`.
    """

    captioner.say_question()

    def traced(image: Path, method: Method | None) -> Trace:
        return trace_caption(captioner.vlm, image, method, words, captioner.prompt, captioner.max_new_tokens)

    return [TracedPair(image, traced(image, None), traced(image, method) if method else None) for image in images]
