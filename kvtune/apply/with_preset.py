"""A model with a preset: the one place where a command's model, preset and question become a captioner and a method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kvtune.apply.image_list import readable_images
from kvtune.errors import RequestError, together
from kvtune.models.options import ModelOptions
from kvtune.presets import Preset, load_preset
from kvtune.study.streams import NamedImage

if TYPE_CHECKING:
    from kvtune.captioning.open import AnyCaptioner
    from kvtune.methods import Method

NO_PRESET: Literal["none"] = "none"
"""What stands for no method at all."""

Choice = Preset | Literal["none"] | None
"""A preset, none, or the one published for the model."""

USUAL_LIMIT = 512
"""Tokens of the longest caption where no preset says."""


@dataclass(frozen=True)
class WithPreset:
    """A captioner that asks the preset's question, unless another was asked for, and the preset's method."""

    captioner: "AnyCaptioner"
    preset: Preset | None
    method: "Method | None"


def choose_preset(named: str | Path | Preset | None) -> Choice:
    """Load the preset that was named; ``none`` and None need no loading.

    Raises
    ------
    RequestError
        As :func:`kvtune.presets.load_preset`.
    """
    if named is None or isinstance(named, Preset):
        return named
    return NO_PRESET if named == NO_PRESET else load_preset(named)


def readable_images_for(
    model: ModelOptions,
    images: Sequence[NamedImage],
    skip_broken: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[NamedImage], dict[Path, str]]:
    """The images that can be read, and of the others why not; a refusal says what is wrong with the model too.

    Parameters and errors are those of :func:`kvtune.apply.image_list.readable_images`.
    """
    try:
        return readable_images(images, skip_broken, on_progress)
    except RequestError as error:
        from kvtune.models.availability import check_known

        raise together(error, lambda: check_known(model.name)) from None


def open_with_preset(
    options: ModelOptions,
    choice: Choice,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    keep_images: bool = True,
) -> WithPreset:
    """Load a model, and take the preset that was chosen or the one published for this very model.

    Parameters
    ----------
    prompt, max_new_tokens
        The preset's where None.
    keep_images
        As for :class:`kvtune.captioning.Captioner`.

    Raises
    ------
    RequestError
        As :func:`kvtune.captioning.open_captioner`, or if the preset's method does not fit the model.
    """
    from kvtune.captioning import open_captioner

    captioner = open_captioner(options)
    vlm = captioner.vlm
    preset = None if choice == NO_PRESET else choice
    if choice is None and vlm.published_preset is not None:
        published = load_preset(vlm.published_preset)
        preset = published if published.model.layers == vlm.n_layers else None  # a folder may have any name
    assert preset is None or isinstance(preset, Preset)
    if preset is not None:
        prompt = preset.generation.prompt if prompt is None else prompt
        max_new_tokens = max_new_tokens or preset.generation.max_new_tokens
    captioner = captioner.changed(prompt=prompt, max_new_tokens=max_new_tokens or USUAL_LIMIT, keep_images=keep_images)
    method = None if preset is None else preset.method()
    if method is not None:
        captioner.check(method)
    return WithPreset(captioner, preset, method)
