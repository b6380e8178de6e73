"""A checkpoint's own processor, which expands the image's place in a chat template into visual tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError
from kvtune.models.image_processor import pillow_image_processor

_SETTINGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Where a checkpoint may name its processor's class, the first that does counts."""


def chat_processor(folder: Path, config: Any) -> Any:
    """The processor of a checkpoint with its tokenizer, padding on the left, and a Pillow-backed image processor.

    Raises
    ------
    RequestError
        If the checkpoint has none that takes images, or no chat template.
    """
    published = processor_class(folder, config)
    try:
        parts = published.get_attributes() if published is not None else []
    except ImportError as error:  # of a class that stands in for one whose packages are not there
        raise RequestError(_what_is_missing(published.__name__, error)) from error
    if "image_processor" not in parts:
        raise RequestError(f"{folder} has no processor that takes images with a prompt")

    class Processor(published):  # type: ignore[misc, valid-type]
        @classmethod
        def _get_arguments_from_pretrained(cls, *arguments: Any, **keywords: Any) -> list[Any]:
            return [_part(name, folder) for name in cls.get_attributes()]

        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return type(argument)

    Processor.__name__ = Processor.__qualname__ = published.__name__
    try:
        processor = Processor.from_pretrained(folder)
    except ImportError as error:
        raise RequestError(_what_is_missing(published.__name__, error)) from error
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not isinstance(chat_template(processor), str):
        raise RequestError(
            f"{folder} ships no chat template, and kvtune knows no other way to ask this model; put its template into "
            "chat_template.jinja there"
        )
    return processor


def chat_template(processor: Any) -> Any:
    """The template of a processor, else its tokenizer's; of several the one that is called default."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def processor_class(folder: Path, config: Any) -> Any:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    for name in _SETTINGS:
        if (folder / name).is_file():
            kind = json.loads((folder / name).read_text(encoding="utf-8")).get("processor_class")
            if kind and hasattr(transformers, kind):
                return getattr(transformers, kind)
    return PROCESSOR_MAPPING.get(type(config), None)


def _part(name: str, folder: Path) -> Any:
    from transformers import AutoTokenizer

    if name == "image_processor":
        return pillow_image_processor(folder)
    if name == "tokenizer":
        return AutoTokenizer.from_pretrained(folder)
    if "tokenizer" in name:
        return AutoTokenizer.from_pretrained(folder / name)
    return None  # for videos or sound, which want packages that images do not


def _what_is_missing(processor: str, error: ImportError) -> str:
    found = re.search(r"requires the (\w+) library|[Pp]ackage `([\w-]+)`", str(error))
    if found is None:
        return f"{processor} cannot be loaded: {str(error).strip().splitlines()[0]}"
    package = (found[1] or found[2]).lower()
    return f"{processor} needs {package}, which is not installed: pip install {package}"
