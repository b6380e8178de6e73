"""What a model family knows, and a loaded model with what belongs to it."""

from __future__ import annotations

import dataclasses
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from kvtune.errors import RequestError
from kvtune.hf import (
    HeadSizes,
    MovingRotary,
    head_sizes,
    recorded_decoder,
    text_decoder,
    visual_tokens,
    without_cudnn_attention,
)
from kvtune.methods.sending import sent
from kvtune.models.decoder_inputs import Prompt, VisualTokens, taken_apart
from kvtune.models.misfit import in_a_line
from kvtune.models.published import MODELS
from kvtune.models.spread import Card, cards_of
from kvtune.text import first_line

MAX_ASPECT = 1000
"""How many times longer one side of an image may be: a shorter edge resized to 336 pixels makes of more gigabytes."""

_USUAL_ASPECT = 10
"""How many times longer one side of an image may be without taking much more memory than others."""

_OF_IMAGES = (ValueError, ZeroDivisionError, MemoryError, OverflowError)
"""What an image processor raises over a shape that it cannot take."""

OPERA_PROMPT = "Please describe this image in detail."
"""The question of OPERA's CHAIR evaluation, which most later papers took over."""


class Family(ABC):
    """A kind of vision-language model: everything about it that its weights do not say."""

    name: ClassVar[str]
    """The short name on the command line."""
    model_types: ClassVar[tuple[str, ...]]
    """``model_type`` in the configuration of checkpoints of this family."""
    default_prompt: ClassVar[str] = OPERA_PROMPT
    usual_tokens: ClassVar[float] = 95.0
    """Tokens of a caption, where none is known yet."""
    evaluation_dtype: ClassVar[torch.dtype | None] = None
    """What ``--dtype auto`` is on a GPU where the stored weights say otherwise than the evaluations run them."""
    silent_tokens: ClassVar[frozenset[int]] = frozenset()
    """Token ids that a caption is decoded without, beside the tokenizer's special tokens."""

    @property
    def title(self) -> str:
        """What people call it."""
        return MODELS[self.name].title

    @abstractmethod
    def model_class(self) -> Any:
        """The Hugging Face model class."""

    @abstractmethod
    def load_processor(self, folder: Path, config: Any) -> Any:
        """What prepares inputs, with a ``tokenizer`` and a Pillow-backed ``image_processor``."""

    @abstractmethod
    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        """Inputs for ``generate()``, one row an image, padded on the left."""

    def check(self, config: dict[str, Any]) -> str | None:
        """Why a checkpoint of one of ``model_types``, known by its config.json, is not supported; None if it is."""
        return None

    def visual_tokens(self, vlm: VisionLanguageModel, inputs: dict[str, Tensor]) -> Tensor:
        """Where the prompt's visual tokens are: a boolean mask [rows, prompt tokens]."""
        return visual_tokens(vlm.hf_model.config, inputs)

    def places(
        self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], images: Sequence[Image.Image]
    ) -> list[Tensor] | None:
        """Where in the picture each row's visual tokens are, as in :class:`VisualTokens`; None if it is not known."""
        return None

    @property
    def has_places(self) -> bool:
        """Whether :meth:`places` knows anything."""
        return type(self).places is not Family.places

    def seen(self, vlm: VisionLanguageModel, image: Image.Image) -> Image.Image:
        """The part of an image that the model sees, stretched or not: the picture that :meth:`places` are in."""
        return image

    def decoder_inputs(
        self,
        vlm: VisionLanguageModel,
        images: Sequence[Image.Image],
        prompt: str | None = None,
        inputs: dict[str, Tensor] | None = None,
    ) -> list[Prompt]:
        """What the text decoder takes for each of some images, as ``generate()`` hands it over.

        Parameters
        ----------
        images, prompt
            As for :meth:`VisionLanguageModel.prepare`.
        inputs
            What :meth:`VisionLanguageModel.prepare_on_host` gives, where it is there already.

        Raises
        ------
        RequestError
            If an image cannot be taken, or the model hands its decoder something that is not known here.
        """
        inputs = vlm.prepare_on_host(images, prompt) if inputs is None else inputs
        with vlm.fitting(), without_cudnn_attention(), recorded_decoder(vlm.hf_model) as calls:
            vlm.hf_model.generate(**vlm.sent(inputs), max_new_tokens=2, eos_token_id=None, use_cache=True)
        places = self.places(vlm, inputs, images)
        visual = [
            VisualTokens(mask[kept.bool()], places[row] if places is not None else None)
            for row, (mask, kept) in enumerate(
                zip(self.visual_tokens(vlm, inputs), inputs["attention_mask"], strict=True)
            )
        ]
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        return taken_apart(calls[0], calls[1], ids, mask, visual, vlm.name)

    def decode(self, vlm: VisionLanguageModel, token_ids: Sequence[int]) -> str:
        """The caption that generated tokens spell."""
        spoken = [token for token in token_ids if token not in self.silent_tokens]
        return self.finish(vlm.tokenizer.decode(spoken, skip_special_tokens=True))

    def finish(self, text: str) -> str:
        """The caption in the text that the model wrote; what a family's evaluation scripts cut away is cut here."""
        return text.strip()

    def stop_sequences(self, vlm: VisionLanguageModel) -> list[list[int]]:
        """Token sequences other than end-of-text after which nothing more is written."""
        return []


@dataclasses.dataclass(frozen=True)
class Processor:
    """What prepares inputs, for families whose processor in transformers does not do or cannot be had."""

    tokenizer: Any
    image_processor: Any


@dataclasses.dataclass(frozen=True, eq=False)
class VisionLanguageModel:
    """A loaded model.

    Attributes
    ----------
    hf_model
        The Hugging Face model, in eval mode, with greedy decoding as its generation config.
    model_id
        Hub id or absolute path that it came from.
    name
        What the user called it: a short name, a folder's name or a Hub id.
    revision
        Commit hash of Hub weights; None for a local folder.
    quantization
        ``4bit`` or ``8bit`` as it was asked for, or None, also where the checkpoint itself is quantized.
    """

    family: Family
    hf_model: Any
    processor: Any
    name: str
    model_id: str
    revision: str | None
    quantization: str | None = None

    def __post_init__(self) -> None:
        self.hf_model.kvtune_vlm = weakref.ref(self)  # so that a method attached to the model finds what it knows

    @property
    def has_places(self) -> bool:
        """Whether it is known where in the picture visual tokens are."""
        return self.family.has_places

    def places(self, inputs: dict[str, Tensor]) -> list[Tensor] | None:
        """Where the visual tokens of inputs for ``generate()`` are.

        None where that takes the images to tell, or prompts have more than one.
        """
        try:
            places = self.family.places(self, inputs, ())
        except (KeyError, IndexError):
            return None
        counts = self.family.visual_tokens(self, inputs).sum(1).tolist()
        return places if places is not None and [len(own) for own in places] == counts else None

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def decoder(self) -> Any:
        """The stack of layers that writes the text."""
        return text_decoder(self.hf_model)

    @cached_property
    def moving_rotary(self) -> MovingRotary:
        """Rotary embeddings of the decoder that follow the longest position of a batch."""
        return MovingRotary(self.decoder)

    @property
    def heads(self) -> HeadSizes:
        """Sizes of the decoder's attention."""
        return head_sizes(self.decoder.config)

    @property
    def head_dim(self) -> int:
        """Numbers of one attention head of the decoder."""
        return self.heads.head_dim

    @property
    def n_layers(self) -> int:
        return len(self.decoder.layers)

    @property
    def device(self) -> torch.device:
        """Where its inputs go; the first of several."""
        return self.hf_model.device

    @property
    def cards(self) -> list[Card]:
        """The devices of the decoder's layers: one, or several if the model is spread over them."""
        return cards_of(self.decoder)

    @property
    def device_name(self) -> str:
        """As ``--device`` names them: ``cuda:0``, or ``cuda:0,cuda:1``."""
        return ",".join(dict.fromkeys(str(device) for device in (self.device, *(card.device for card in self.cards))))

    @property
    def dtype(self) -> torch.dtype:
        """The type that the language model computes in; a vision tower may stay in float32."""
        return self.decoder.dtype

    @property
    def dtype_name(self) -> str:
        """As in ``float16``, or ``float16-4bit`` where the language model's weights are quantized."""
        return "-".join(filter(None, (str(self.dtype).removeprefix("torch."), self.quantization)))

    @property
    def is_quantized(self) -> bool:
        """Whether weights are quantized, by :attr:`quantization` or in the checkpoint already."""
        return bool(getattr(self.hf_model, "is_quantized", False))

    @property
    def waits_in_layers(self) -> bool:
        """Whether layers have the host look at numbers, as LLM.int8() does for outliers, so that no CUDA graph holds
        them."""
        return bool(getattr(self.hf_model, "is_loaded_in_8bit", False))

    @property
    def eos_token_ids(self) -> list[int]:
        """The tokens that end a text."""
        ids = self.hf_model.generation_config.eos_token_id
        return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)

    @property
    def pad_token_id(self) -> int:
        return self.hf_model.generation_config.pad_token_id

    @property
    def default_prompt(self) -> str:
        return self.family.default_prompt

    @property
    def published_preset(self) -> str | None:
        """Name of the published preset for this very model, None for others of its family."""
        published = MODELS.get(self.name)
        return published.preset if published is not None and published.family == self.family.name else None

    def prepare(self, images: Sequence[Image.Image], prompt: str | None = None) -> dict[str, Tensor]:
        """Inputs for ``generate()``: one row an image, padded on the left, on the model's device.

        As :meth:`prepare_on_host`, which says what is taken and what is refused.
        """
        return self.sent(self.prepare_on_host(images, prompt))

    def sent(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What :meth:`prepare_on_host` gave, on the model's device."""
        return {key: sent(value, self.device) for key, value in inputs.items()}

    def prepare_on_host(self, images: Sequence[Image.Image], prompt: str | None = None) -> dict[str, Tensor]:
        """The same in the host's memory, from which a GPU copies while the host goes on.

        Parameters
        ----------
        images
            Images in any of Pillow's modes; all but RGB are converted as ``Image.convert("RGB")`` does.
        prompt
            The question, without the family's template; None is the family's default.

        Raises
        ------
        RequestError
            If there is no image, or one has a shape that the family's preprocessing cannot take.
        """
        if not images:
            raise RequestError("there is no image to prepare")
        in_colour = [image.convert("RGB") for image in images]
        width, height = max((image.size for image in images), key=lambda size: max(size) / min(size))
        try:
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise ValueError(f"one side is longer than the other by more than {MAX_ASPECT} times")
            with in_a_line(f"the processor of {self.name} cannot be used", but=_OF_IMAGES):
                inputs = self.family.prepare(self, in_colour, prompt if prompt is not None else self.default_prompt)
        except _OF_IMAGES as error:
            if isinstance(error, MemoryError) and max(width, height) <= _USUAL_ASPECT * min(width, height):
                raise  # it is not the image that takes so much
            why = f"{self.family.title} cannot take an image of {width}x{height} pixels: {first_line(error)}"
            raise RequestError(f"{why}; leave it out") from error
        return {key: value.pin_memory() if self.device.type == "cuda" else value for key, value in inputs.items()}

    def fitting(self) -> AbstractContextManager[None]:
        """Around a forward pass over a prompt with its image: what shows that files do not fit is told in a line."""
        return in_a_line(f"the processor and the weights of {self.name} do not fit each other")

    def decode(self, token_ids: Sequence[int]) -> str:
        """The caption that generated tokens spell."""
        return self.family.decode(self, token_ids)
