"""The engine: requests in, captions out."""

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.open import AnyCaptioner, open_captioner
from kvtune.captioning.request import Caption, CaptionRequest
from kvtune.models.options import Lanes

__all__ = ["AnyCaptioner", "Caption", "CaptionRequest", "Captioner", "Lanes", "open_captioner"]
