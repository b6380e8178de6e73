"""What a model family knows, and a loaded model with what belongs to it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from kvtune.errors import RequestError
from kvtune.methods.attach import text_decoder

OPERA_PROMPT = "Please describe this image in detail."
"""The question of OPERA's CHAIR evaluation, which most later papers took over."""


class Family(ABC):
    """A kind of vision-language model: everything about it that its weights do not say."""

    name: ClassVar[str]
    """The short name on the command line."""
    model_types: ClassVar[tuple[str, ...]]
    """``model_type`` in the configuration of checkpoints of this family."""
    hub_ids: ClassVar[dict[str, str]]
    """Short name -> Hub id of the published weights; the first is the family's own name."""
    published_presets: ClassVar[dict[str, str]] = {}
    """Short name -> published preset that ships with kvtune."""
    default_prompt: ClassVar[str] = OPERA_PROMPT

    @abstractmethod
    def load(self, source: str | Path, **settings: Any) -> tuple[Any, Any]:
        """The model and its processor from a local folder or the Hub; ``settings`` go to ``from_pretrained``."""

    @abstractmethod
    def prepare(self, vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str) -> dict[str, Tensor]:
        """Inputs for ``generate()``, one row an image, padded on the left."""

    @abstractmethod
    def visual_tokens(self, vlm: VisionLanguageModel, inputs: dict[str, Tensor]) -> Tensor:
        """Where the prompt's visual tokens are: a boolean mask [rows, prompt tokens]."""

    def finish(self, text: str) -> str:
        """The caption in the text that the model wrote; what a family's evaluation scripts cut away is cut here."""
        return text.strip()

    def stop_sequences(self, vlm: VisionLanguageModel) -> list[list[int]]:
        """Token sequences other than end-of-text after which nothing more is written."""
        return []

    def prefill(self, vlm: VisionLanguageModel, inputs: dict[str, Tensor], cache: Any) -> Tensor:
        """Run the prompt, images included, into ``cache``; the logits after its last token, [rows, vocabulary]."""
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)  # padding does not count
        output = vlm.hf_model(**inputs, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1]

    def next_positions(self, vlm: VisionLanguageModel, inputs: dict[str, Tensor]) -> Tensor:
        """Rotary position of each row's first generated token, [rows]; asked right after :meth:`prefill`."""
        return inputs["attention_mask"].sum(1)


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
    """

    family: Family
    hf_model: Any
    processor: Any
    name: str
    model_id: str
    revision: str | None

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def decoder(self) -> Any:
        """The stack of layers that writes the text."""
        return text_decoder(self.hf_model)

    @property
    def n_layers(self) -> int:
        return len(self.decoder.layers)

    @property
    def device(self) -> torch.device:
        return self.hf_model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.hf_model.dtype

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

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
        return self.family.published_presets.get(self.name)

    def prepare(self, images: Sequence[Image.Image], prompt: str | None = None) -> dict[str, Tensor]:
        """Inputs for ``generate()``: one row an image, padded on the left, on the model's device.

        Parameters
        ----------
        images
            RGB images.
        prompt
            The question, without the family's template; None is the family's default.
        """
        if not images:
            raise RequestError("there is no image to prepare")
        inputs = self.family.prepare(self, images, prompt if prompt is not None else self.default_prompt)
        return {
            key: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def decode(self, token_ids: Sequence[int]) -> str:
        """The caption that generated tokens spell."""
        return self.family.finish(self.tokenizer.decode(token_ids, skip_special_tokens=True))
