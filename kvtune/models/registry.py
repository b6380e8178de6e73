"""The families there are."""

from kvtune.errors import RequestError
from kvtune.models.families.demo import Demo
from kvtune.models.families.instructblip import InstructBlip
from kvtune.models.families.llava import Llava
from kvtune.models.families.llava_next import LlavaNext
from kvtune.models.families.minigpt4 import MiniGpt4
from kvtune.models.families.qwen2_5_vl import Qwen2_5_VL
from kvtune.models.families.qwen3_vl import Qwen3VL
from kvtune.models.family import Family
from kvtune.text import quoted

_FAMILIES: tuple[Family, ...] = (Demo(), Llava(), MiniGpt4(), InstructBlip(), LlavaNext(), Qwen2_5_VL(), Qwen3VL())


def all_families() -> tuple[Family, ...]:
    """All families, the demo first."""
    return _FAMILIES


def model_names() -> list[str]:
    """Every short name that ``--model`` takes."""
    return [name for family in _FAMILIES for name in (family.hub_ids or {family.name: ""})]


def hub_id_name(hub_id: str) -> str | None:
    """The short name that stands for a Hub id, if one does."""
    return next((name for family in _FAMILIES for name, its in family.hub_ids.items() if its == hub_id), None)


def get_family(name: str) -> Family:
    """The family of a short name.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    for family in _FAMILIES:
        if name == family.name or name in family.hub_ids:
            return family
    raise RequestError(
        f"unknown model {quoted(name)}; there is {', '.join(model_names())}, or give a folder or a Hub id"
    )


def family_of(model_type: str) -> Family | None:
    """The family whose checkpoints have this ``model_type`` in their configuration."""
    return next((family for family in _FAMILIES if model_type in family.model_types), None)
