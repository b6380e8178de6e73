"""Depth of what visual tokens see, kept for each image and paid for once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from kvtune.captioning.image_keys import open_image
from kvtune.captioning.request import CaptionRequest
from kvtune.errors import RequestError
from kvtune.methods.facts import PromptFacts
from kvtune.methods.sending import to_device
from kvtune.models import VisionLanguageModel
from kvtune.models.depth import DepthMap, depth_maps, depth_of_places


class Depths:
    """Depth from any sources, of a model's visual tokens.

    Parameters
    ----------
    content
        What tells images apart.
    keep
        Whether depth is kept for the next time that an image comes.
    """

    def __init__(
        self, vlm: VisionLanguageModel, content: Callable[[Image.Image | Path], str], keep: bool = True
    ) -> None:
        self.vlm, self._content, self._keep = vlm, content, keep
        self._sources: dict[str, DepthMap] = {}
        self._kept: dict[tuple[str, str], np.ndarray] = {}

    def of(self, request: CaptionRequest, source: str, known: PromptFacts) -> Tensor:
        """How far away what each visual token of a request's prompt sees is, [visual tokens], 0 to 1.

        Raises
        ------
        RequestError
            If there is no depth of this image, or its visual tokens have no places.
        """
        key = source, self._content(request.image)
        depth = self._kept.get(key)
        if depth is None:
            if known.places is None:
                raise RequestError(f"depth is asked of visual tokens, and those of {self.vlm.name} have no places")
            path = request.image if isinstance(request.image, Path) else None
            whole = self._source(source)(open_image(request.image), path)
            seen = self.vlm.family.seen(self.vlm, Image.fromarray(whole.astype(np.float32), mode="F"))
            depth = depth_of_places(np.asarray(seen), known.places.double().cpu().numpy())
            if self._keep:
                self._kept[key] = depth
        return to_device(depth, self.vlm.device)

    def check(self, source: str) -> None:
        """Raise RequestError if there is no such source of depth."""
        self._source(source)

    def _source(self, source: str) -> DepthMap:
        if source not in self._sources:
            self._sources[source] = depth_maps(source, self.vlm.device)
        return self._sources[source]
