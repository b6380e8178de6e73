"""Image processors that resize with Pillow, as the evaluations do, whatever else is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from kvtune.errors import RequestError


def pillow_image_processor(folder: Path) -> Any:
    """A checkpoint's image processor in its Pillow form.

    transformers takes torchvision's resizing where that is installed, which gives other pixels; ``backend="pil"`` of
    its ``AutoImageProcessor`` would do, but up to 5.17 that class itself asks for torchvision.
    """
    import transformers

    stored: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            stored = json.loads((folder / name).read_text(encoding="utf-8"))
            stored = stored.get("image_processor", stored)
        if "image_processor_type" in stored:
            break
    else:
        raise RequestError(f"{folder} has no preprocessor_config.json that names an image processor; copy it there")
    kind = stored["image_processor_type"].removesuffix("Fast").removesuffix("Pil")
    pillow_class = getattr(transformers, f"{kind}Pil", None) or _of_model_type(folder, kind)
    if pillow_class is None:
        raise RequestError(f"transformers has no Pillow form of {folder}'s image processor {kind}")
    return pillow_class.from_pretrained(folder)


def _of_model_type(folder: Path, kind: str) -> Any:
    """The class for a checkpoint's kind of model, where the one that it names is gone, as Qwen2_5_VLImageProcessor."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    if hasattr(transformers, kind) or not (folder / "config.json").is_file():
        return None
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return getattr(transformers, IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {}).get("pil", ""), None)


def centre_crop(image_processor: Any, image: Image.Image) -> Image.Image:
    """The part of an image that is left by an image processor that crops its middle; all of it by another."""
    if not image_processor.do_center_crop:
        return image
    edge, crop = image_processor.size["shortest_edge"], image_processor.crop_size
    scale = min(image.size) / edge
    width, height = min(image.width, crop["width"] * scale), min(image.height, crop["height"] * scale)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.crop((round(left), round(top), round(left + width), round(top + height)))
