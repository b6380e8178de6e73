"""A picture of where a model's visual tokens are."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from kvtune.errors import RequestError
from kvtune.models import VisionLanguageModel
from kvtune.models.decoder_inputs import VisualTokens


def draw_places(picture: Image.Image, visual: VisualTokens, size: int = 768) -> Image.Image:
    """A picture with a dot at each visual token's place, from blue for the first to red for the last.

    Raises
    ------
    RequestError
        If the tokens have no places.
    """
    if visual.places is None:
        raise RequestError("this model's visual tokens have no places in the picture that are known; leave --png out")
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    drawn = picture.convert("RGB").resize((width, height))
    drawn = Image.blend(drawn, Image.new("RGB", drawn.size, "white"), 0.35)
    pen = ImageDraw.Draw(drawn)
    last = max(1, len(visual.places) - 1)
    for number, (right, down) in enumerate(visual.places.tolist()):
        if right == right:  # line ends have none
            x, y, radius = right * drawn.width, down * drawn.height, 4 if len(visual.places) < 1000 else 2
            hue = round(170 * (1 - number / last))
            colour = Image.new("HSV", (1, 1), (hue, 255, 220)).convert("RGB").getpixel((0, 0))
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return drawn


def write_places(path: Path, vlm: VisionLanguageModel, image: Image.Image, prompt: str | None = None) -> None:
    """Write :func:`draw_places` of an image to ``path``. Raises as that does."""
    (found,) = vlm.family.decoder_inputs(vlm, [image], prompt)
    drawn = draw_places(vlm.family.seen(vlm, image), found.visual)
    try:
        drawn.save(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written as a picture: {error}; give a name such as tokens.png") from error
