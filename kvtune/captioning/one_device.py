"""From the options of a command to a captioner on one device, in this process."""

from __future__ import annotations

from kvtune.captioning.captioner import Captioner
from kvtune.models.opening import open_model
from kvtune.models.options import ModelOptions


def open_on_one_device(options: ModelOptions, prompt: str | None = None, max_new_tokens: int = 512) -> Captioner:
    """Load a model and make its captioner. Raises as :func:`kvtune.captioning.open_captioner` does."""
    engine = options.engine
    return Captioner(open_model(options), prompt, max_new_tokens, engine.lanes, engine.cuda_graphs)
