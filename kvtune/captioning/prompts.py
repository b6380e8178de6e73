"""Prompts as they enter the decoder, images included, kept in host memory.

Opening and resizing an image and the vision tower come to the same in every round of a search, so what they give is
kept. A prompt's keys and values are not: those of a 7B model take sixty times as much, some 160 GB for 500 images, and
one pass of the decoder over the prompt gives them again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from kvtune.captioning.host_copy import Arrival, leaving
from kvtune.captioning.image_keys import open_image
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.prepared_ahead import Prepared, PreparedAhead
from kvtune.captioning.side_stream import SideStream
from kvtune.device_errors import is_out_of_memory
from kvtune.errors import RequestError
from kvtune.host_memory import host_memory
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import Prompt
from kvtune.models.prompt_ids import some_rows

_SHARE = 0.25
"""Share of the free host memory that kept prompts may take."""

log = logging.getLogger(__name__)


class Prompts:
    """Prompts of one question about any images.

    Prompts are kept until the memory for them is full, and from then on no new ones: images come round after round in
    the same order, where throwing out the oldest would keep none that comes again.

    Parameters
    ----------
    limit
        Bytes of host memory to keep prompts in; None is a quarter of what is free.

    Attributes
    ----------
    embedded
        Images that went through the vision tower.
    kept_bytes
        Host memory in use.
    """

    def __init__(self, vlm: VisionLanguageModel, prompt: str | None = None, limit: int | None = None) -> None:
        self.vlm, self.prompt = vlm, prompt
        self.embedded = self.kept_bytes = 0
        self._limit = int(_SHARE * host_memory().free) if limit is None else limit
        self._kept: dict[str, Prompt] = {}
        self._leaving: dict[str, Prompt] = {}
        """Those of the latest batch, on their way into pinned memory, which shall not be more than that takes."""
        self._arrival = Arrival(vlm.device)
        self._beside = SideStream(vlm.device)
        self._ahead = PreparedAhead(vlm, prompt)

    @torch.inference_mode()
    def of(self, contents: Sequence[str], images: Sequence[Image.Image | Path]) -> list[Prompt]:
        """The prompts of some images, on the model's device.

        Parameters
        ----------
        contents
            What tells images apart: equal for images that are the same.

        Raises
        ------
        RequestError
            If an image cannot be read.
        """
        self._settle()
        missing = self._missing(contents)
        new: dict[str, Prompt] = {}
        if missing:
            with self._beside.running():
                new = dict(zip(missing, self._embed(list(missing), [images[n] for n in missing.values()]), strict=True))
                self._keep(new)
            self._beside.hand_over(tensor for prompt in new.values() for tensor in prompt.tensors)
        return [new[content] if content in new else self._kept[content].to(self.vlm.device) for content in contents]

    def expect(self, contents: Sequence[str], images: Sequence[Image.Image | Path]) -> None:
        """Open and resize in the background what will be wanted next, as one batch, but for what is kept."""
        missing = self._missing(contents)
        self._ahead.expect(list(missing), [images[n] for n in missing.values()])

    def _missing(self, contents: Sequence[str]) -> dict[str, int]:
        """What is not kept, and where it stands among ``contents``."""
        kept = self._kept, self._leaving
        return {content: n for n, content in enumerate(contents) if not any(content in there for there in kept)}

    def _keep(self, prompts: Mapping[str, Prompt]) -> None:
        """Begin to copy to the host what there is room for."""
        coming: dict[str, Prompt] = {}
        for content, prompt in prompts.items():
            if self.kept_bytes + prompt.nbytes <= self._limit:
                try:
                    coming[content] = prompt.moved(leaving)
                except RuntimeError as error:  # of pinned memory there may be less
                    if not is_out_of_memory(error):
                        raise
                    self._limit = self.kept_bytes
                else:
                    self.kept_bytes += prompt.nbytes
                    continue
            if self._limit:
                log.debug("no host memory to keep more than %d prompts", len(self._kept) + len(coming))
        self._leaving, self._arrival = coming, Arrival(self.vlm.device)

    def _settle(self) -> None:
        """Move what was on its way out of pinned memory."""
        self._arrival.wait()
        for content, prompt in self._leaving.items():
            self._kept[content] = prompt.moved(lambda tensor: tensor.clone() if tensor.is_pinned() else tensor)
        self._leaving = {}

    def _embed(self, contents: Sequence[str], images: Sequence[Image.Image | Path]) -> list[Prompt]:
        """Run everything that comes before the decoder, for images as one batch, unless they are too large for that.

        As large as the prompts that they make: a photo of 12 megapixels takes 3 GiB in Qwen2.5-VL's vision tower.
        """
        self.embedded += len(images)
        opened, inputs = self._ahead.take(contents) or self._prepare([open_image(image) for image in images])
        family, most = self.vlm.family, prompts_together(int(inputs["attention_mask"].sum(1).max()))
        visual_tokens = family.visual_tokens(self.vlm, inputs).sum(1).tolist()
        prompts: list[Prompt] = []
        for begin in range(0, len(opened), most):
            part = opened[begin : begin + most]
            of_part = some_rows(inputs, visual_tokens, begin, begin + len(part))
            prompts += family.decoder_inputs(self.vlm, part, self.prompt, of_part)
        return prompts

    def _prepare(self, opened: list[Image.Image]) -> Prepared:
        return opened, self.vlm.prepare_on_host(opened, self.prompt)


def check_window(vlm: VisionLanguageModel, prompt_tokens: int, max_new_tokens: int) -> None:
    """Refuse what a decoder with sliding windows would not see whole, for the grid's attention sees all of it.

    Raises
    ------
    RequestError
        If a layer's window is shorter than a prompt of ``prompt_tokens`` with its caption may get.
    """
    config = vlm.decoder.config
    narrow = set(getattr(config, "layer_types", None) or ["sliding_attention"]) - {"full_attention"}
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    window = min((size for size in windows if size and narrow), default=None)
    if window is None or prompt_tokens + max_new_tokens <= window:
        return
    cure = (
        "no caption fits into that" if prompt_tokens >= window else f"at most {window - prompt_tokens} new tokens fit"
    )
    raise RequestError(
        f"{vlm.name} has layers that see only the last {window} tokens of a prompt of {prompt_tokens} and a caption of "
        f"up to {max_new_tokens}; the engine reads all of them: {cure}"
    )


def check_rotary(vlm: VisionLanguageModel, next_position: int, max_new_tokens: int) -> None:
    """Refuse captions in the middle of which the decoder's rotary frequencies would become others.

    Parameters
    ----------
    next_position
        The position of a caption's first token.

    Raises
    ------
    RequestError
        If a caption might pass the limit; see :class:`kvtune.hf.MovingRotary`.
    """
    limit = vlm.moving_rotary.limit
    fit = max_new_tokens if limit is None else limit - next_position + 1  # nobody looks back from the last token
    if max_new_tokens > fit:
        cure = f"at most {fit} new tokens fit" if fit > 0 else "no caption fits into that"
        raise RequestError(
            f"{vlm.name} turns positions beyond {limit:,} by other frequencies, and a prompt takes {next_position:,}"
            f" of them: {cure}"
        )
