"""The engine: requests in, captions out."""

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.memory import Lanes
from kvtune.captioning.request import Caption, CaptionRequest

__all__ = ["Caption", "CaptionRequest", "Captioner", "Lanes"]
