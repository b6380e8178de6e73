"""Published weights that have a short name: where they are, how large they are, which preset ships for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.text import did_you_mean, not_there, quoted


@dataclass(frozen=True)
class PublishedModel:
    """A model that ``--model`` takes by a short name.

    Attributes
    ----------
    name
        The short name; the first of a family is the family's own.
    family, title
        Its family's name, and what people call the family.
    hub_id
        Where the weights are on the Hub; None if they are not there in one piece.
    billions, gpu_gib
        Parameters in billions, and GiB of GPU memory that they take with the language model in 16 bits; None for the
        demo, which ships.
    preset
        The published preset that ships for it.
    how_to_get
        The command that makes the weights where they are not on the Hub.
    """

    name: str
    family: str
    title: str
    hub_id: str | None = None
    billions: float | None = None
    gpu_gib: float | None = None
    preset: str | None = None
    how_to_get: str | None = None

    @property
    def command(self) -> str | None:
        """What gets or makes the weights; None for the demo."""
        return f"hf download {self.hub_id}" if self.hub_id else self.how_to_get


_CONVERT = (
    "kvtune models convert minigpt4 --vicuna DIR --eva eva_vit_g.pth --qformer blip2_pretrained_flant5xxl.pth "
    "--checkpoint prerained_minigpt4_7b.pth"
)

_ONE_VISION = "LLaVA-OneVision"

PUBLISHED = (
    PublishedModel("demo", "demo", "Demo", preset="demo"),
    PublishedModel("llava-1.5", "llava-1.5", "LLaVA-1.5", "llava-hf/llava-1.5-7b-hf", 7.06, 13.2, "llava-1.5"),
    PublishedModel("llava-1.5-13b", "llava-1.5", "LLaVA-1.5", "llava-hf/llava-1.5-13b-hf", 13.35, 24.9),
    PublishedModel("minigpt4", "minigpt4", "MiniGPT-4", None, 7.83, 16.6, "minigpt4", _CONVERT),
    PublishedModel(
        "instructblip", "instructblip", "InstructBLIP", "Salesforce/instructblip-vicuna-7b", 7.91, 16.9, "instructblip"
    ),
    PublishedModel("llava-next", "llava-next", "LLaVA-NeXT", "llava-hf/llava-v1.6-vicuna-7b-hf", 7.06, 13.2),
    PublishedModel("qwen2.5-vl", "qwen2.5-vl", "Qwen2.5-VL", "Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 15.4),
    PublishedModel("qwen3-vl", "qwen3-vl", "Qwen3-VL", "Qwen/Qwen3-VL-8B-Instruct", 8.77, 16.3),
    PublishedModel("qwen3-vl-4b", "qwen3-vl", "Qwen3-VL", "Qwen/Qwen3-VL-4B-Instruct", 4.44, 8.3),
    PublishedModel("qwen3-vl-2b", "qwen3-vl", "Qwen3-VL", "Qwen/Qwen3-VL-2B-Instruct", 2.13, 4.0),
    PublishedModel("internvl3.5", "internvl3.5", "InternVL3.5", "OpenGVLab/InternVL3_5-8B-HF", 8.53, 15.9),
    PublishedModel("internvl3.5-4b", "internvl3.5", "InternVL3.5", "OpenGVLab/InternVL3_5-4B-HF", 4.73, 8.8),
    PublishedModel(
        "llava-onevision", "llava-onevision", _ONE_VISION, "llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03, 15.0
    ),
    PublishedModel(
        "llava-onevision-0.5b", "llava-onevision", _ONE_VISION, "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", 0.89, 1.7
    ),
    PublishedModel("gemma3", "gemma3", "Gemma 3", "google/gemma-3-4b-it", 4.3, 8.0),
    PublishedModel("gemma3-12b", "gemma3", "Gemma 3", "google/gemma-3-12b-it", 12.19, 22.7),
    PublishedModel("gemma3-27b", "gemma3", "Gemma 3", "google/gemma-3-27b-it", 27.43, 51.1),
    PublishedModel("smolvlm2", "smolvlm2", "SmolVLM2", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", 2.25, 4.2),
)

MODELS = {model.name: model for model in PUBLISHED}
"""Every short name that ``--model`` takes."""


def published_model(name: str) -> PublishedModel:
    """The model of a short name.

    Raises
    ------
    RequestError
        If there is none of that name.
    """
    if name in MODELS:
        return MODELS[name]
    if name.startswith((".", "/", "~")):
        raise RequestError(f"there is no folder {quoted(name)}{did_you_mean(name, _folders_beside(name))}")
    raise RequestError(f"{not_there('model', name, MODELS)}, or give a folder or a Hub id")


def _folders_beside(path: str) -> list[str]:
    """The folders beside one that does not exist, spelled as it is."""
    try:
        beside = [each.name for each in check_path(path).parent.iterdir() if each.is_dir()]
    except OSError:
        return []
    return [path.removesuffix(Path(path).name) + name for name in sorted(beside)]


def hub_id_name(hub_id: str) -> str | None:
    """The short name that stands for a Hub id, if one does."""
    return next((model.name for model in PUBLISHED if model.hub_id == hub_id), None)
