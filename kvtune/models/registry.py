"""The families there are."""

from kvtune.models.families.demo import Demo
from kvtune.models.families.gemma3 import Gemma3
from kvtune.models.families.generic import Unnamed, is_image_text_to_text
from kvtune.models.families.instructblip import InstructBlip
from kvtune.models.families.internvl3_5 import InternVL35
from kvtune.models.families.llava import Llava
from kvtune.models.families.llava_next import LlavaNext
from kvtune.models.families.llava_onevision import LlavaOneVision
from kvtune.models.families.minigpt4 import MiniGpt4
from kvtune.models.families.qwen2_5_vl import Qwen2_5_VL
from kvtune.models.families.qwen3_vl import Qwen3VL
from kvtune.models.families.smolvlm2 import SmolVLM2
from kvtune.models.family import Family
from kvtune.models.published import MODELS, published_model

_FAMILIES: tuple[Family, ...] = (
    Demo(),
    Llava(),
    MiniGpt4(),
    InstructBlip(),
    LlavaNext(),
    Qwen2_5_VL(),
    Qwen3VL(),
    InternVL35(),
    LlavaOneVision(),
    Gemma3(),
    SmolVLM2(),
)


def all_families() -> tuple[Family, ...]:
    """All families, the demo first."""
    return _FAMILIES


def get_family(name: str) -> Family:
    """The family of a model's short name, which its own name is too, or of a ``model_type`` that has none of its own.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    if name not in MODELS and is_image_text_to_text(name):
        return Unnamed(name)
    published = published_model(name)
    return next(family for family in _FAMILIES if family.name == published.family)


def family_of(model_type: str) -> Family | None:
    """The family whose checkpoints have this ``model_type`` in their configuration; None if none has.

    An :class:`Unnamed` one for what transformers loads as image-text-to-text and has no family of its own here.
    """
    named = next((family for family in _FAMILIES if model_type in family.model_types), None)
    return named or (Unnamed(model_type) if is_image_text_to_text(model_type) else None)
