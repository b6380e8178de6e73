"""The captions that every arm of the bench makes, by ``generate()`` and by the engine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from PIL import Image

from kvtune.bench.engine.spent import Spent
from kvtune.captioning.captioner import Captioner, Plan
from kvtune.captioning.request import Caption, CaptionRequest, cut
from kvtune.hf import without_cudnn_attention
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel
from kvtune.models.options import Lanes

Lengths = Callable[[int, int], int]
"""Forced caption length of (image number, trial number), in tokens."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What one run of an arm made.

    Attributes
    ----------
    tokens
        Of all captions, the useful ones.
    steps
        Forward passes of the decoder; of the engine, decode steps alone.
    batch
        Captions decoded at once.
    prompts
        Prompts that had to be run, images included: the engine's captions of one image share theirs.
    plan
        The engine's grid.
    finished
        Seconds at which the engine finished each caption.
    spent
        Where the engine's time went.
    """

    captions: int
    tokens: int
    steps: int
    batch: int
    prompts: int
    plan: Plan | None = None
    finished: list[float] = dataclasses.field(default_factory=list)
    spent: Spent | None = None


class Workload:
    """The same images and settings for every arm."""

    def __init__(self, captioner: Captioner, images: Sequence[Image.Image], lengths: Lengths | None = None) -> None:
        self.vlm, self.prompt, self.images, self.lengths = captioner.vlm, captioner.prompt, images, lengths
        self.max_new_tokens, self.lanes = captioner.max_new_tokens, captioner.lanes
        self._captioner = captioner
        self.prompt_tokens = int(self.vlm.prepare(images[:1], self.prompt)["attention_mask"].shape[1])
        self.most_tokens: int | None = None
        """Where set, no caption gets longer: for warming up, and where not speed is measured."""
        self.most_images: int | None = None
        self.latest: dict[str, Made] = {}
        """Each arm's latest run."""

    @contextmanager
    def ends_forced(self) -> Iterator[None]:
        """No end-of-text token while lengths are forced."""
        with self.no_ends() if self.lengths is not None else nullcontext():
            yield

    @contextmanager
    def no_ends(self) -> Iterator[None]:
        """No end-of-text token: captions run to their limits."""
        generation = self.vlm.hf_model.generation_config
        before, generation.eos_token_id = generation.eos_token_id, None
        try:
            yield
        finally:
            generation.eos_token_id = before

    def limit(self, image: int, trial: int) -> int:
        limit = self.lengths(image, trial) if self.lengths else self.max_new_tokens
        return limit if self.most_tokens is None else min(limit, self.most_tokens)

    @property
    def all(self) -> list[int]:
        """The numbers of the images."""
        return list(range(len(self.images)))[: self.most_images]

    @contextmanager
    def short(self, tokens: int, images: int | None = None) -> Iterator[None]:
        """Captions of at most ``tokens`` tokens, of the first ``images`` images."""
        self.most_tokens, self.most_images = tokens, images
        try:
            yield
        finally:
            self.most_tokens = self.most_images = None

    def generate(self, chosen: Sequence[int], batch: int, attention: str | None, method: Method | None) -> Made:
        """Captions of ``chosen`` images by ``generate()``, whose attention in batches is no slower than it can be."""
        tokens = 0
        attached = method(self.vlm.hf_model) if method else nullcontext()
        with _count_steps(self.vlm) as steps, _attention(self.vlm, attention), attached, without_cudnn_attention():
            for first in range(0, len(chosen), batch):
                rows = chosen[first : first + batch]
                inputs = self.vlm.prepare([self.images[image] for image in rows], self.prompt)
                limits = [self.limit(image, 0) for image in rows]
                with torch.inference_mode():
                    output = self.vlm.hf_model.generate(**inputs, max_new_tokens=max(limits))
                written = output[:, inputs["input_ids"].shape[1] :].tolist()
                tokens += sum(map(self._useful, written, limits))
        return Made(len(chosen), tokens, steps[0], min(batch, len(chosen)), len(chosen))

    def captioner(self, lanes: Lanes) -> Captioner:
        """A new captioner of so many lanes."""
        return self._captioner.changed(lanes=lanes)

    def engine(self, methods: Sequence[Method | None]) -> Made:
        """Captions of all images under each of ``methods`` by the engine."""
        captioner = self.captioner(self.lanes)
        finished: list[float] = []
        spent = Spent(self.vlm.device)
        with spent.counted():
            captions = self.captions(captioner, methods, self.all, finished)
        # What ended a caption was decoded too, and counts as it does for generate().
        tokens = sum(len(caption.token_ids) + (caption.finish_reason == "eos") for caption in captions.values())
        assert captioner.plan is not None
        rows = captioner.plan.rows
        return Made(len(captions), tokens, captioner.steps, rows, len(self.all), captioner.plan, finished, spent)

    def captions(
        self, captioner: Captioner, methods: Sequence[Method | None], chosen: Sequence[int], finished: list[float]
    ) -> dict[tuple[int, int], Caption]:
        """Captions by (image, trial); the seconds at which they were finished are added to ``finished``."""
        requests = (
            CaptionRequest(image, self.images[image], method, trial, self.limit(image, trial))
            for image in chosen
            for trial, method in enumerate(methods)
        )
        captions: dict[tuple[int, int], Caption] = {}
        start = time.perf_counter()
        for caption in captioner.run(requests):
            captions[caption.image_id, cast(int, caption.tag)] = caption
            finished.append(time.perf_counter() - start)
        return captions

    def _useful(self, written: list[int], limit: int) -> int:
        ended = cut(written[:limit], self.vlm.eos_token_ids, [])
        return limit if ended is None else len(ended[0]) + 1


@contextmanager
def _attention(vlm: VisionLanguageModel, name: str | None) -> Iterator[None]:
    """Let the whole model use the attention implementation ``name`` for a while; None leaves it."""
    before = vlm.hf_model.config._attn_implementation
    if name is not None:
        vlm.hf_model.set_attn_implementation(name)
    try:
        yield
    finally:
        if name is not None:
            vlm.hf_model.set_attn_implementation(before)


@contextmanager
def _count_steps(vlm: VisionLanguageModel) -> Iterator[list[int]]:
    """Forward passes of the decoder in the block, in a list of one number."""
    count = [0]

    def seen(*_: Any) -> None:
        count[0] += 1

    hook = vlm.decoder.register_forward_pre_hook(seen)
    try:
        yield count
    finally:
        hook.remove()
