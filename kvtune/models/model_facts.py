"""What is to be known of a model, wherever it was loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from kvtune.models.family import Family, VisionLanguageModel


@dataclass(frozen=True)
class ModelFacts:
    """A model without its weights; attributes as those of :class:`kvtune.models.VisionLanguageModel`.

    Attributes
    ----------
    device_name
        On what it runs, in words.
    """

    family: Family
    name: str
    model_id: str
    revision: str | None
    dtype_name: str
    n_layers: int
    default_prompt: str
    published_preset: str | None
    device_name: str

    @classmethod
    def of(cls, vlm: VisionLanguageModel) -> ModelFacts:
        """What is to be known of a loaded model."""
        return cls(**{field.name: getattr(vlm, field.name) for field in fields(cls)})


AnyModel: TypeAlias = "VisionLanguageModel | ModelFacts"
