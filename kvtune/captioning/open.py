"""Opening a captioner: the one place where the options of a command become a model that writes captions."""

from __future__ import annotations

from kvtune.captioning.captioner import Captioner
from kvtune.models.opening import open_model
from kvtune.models.options import ModelOptions


def open_captioner(options: ModelOptions, prompt: str | None = None, max_new_tokens: int = 512) -> Captioner:
    """Load a model and make its captioner; :attr:`Captioner.vlm` is the model.

    Parameters
    ----------
    prompt, max_new_tokens
        As for :class:`Captioner`; :meth:`Captioner.changed` gives the same model others.

    Raises
    ------
    RequestError
        If an option is wrong, or the model is missing, is not supported or does not fit into the device's memory.
    """
    engine = options.engine
    return Captioner(open_model(options), prompt, max_new_tokens, engine.lanes, engine.cuda_graphs)
