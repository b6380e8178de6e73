"""What a captioner asks about each image, and saying so."""

from __future__ import annotations

import logging

from kvtune.models.model_facts import AnyModel
from kvtune.text import one_line

log = logging.getLogger(__name__)


class Asking:
    """What captioners have in common that ask a question, their model's where ``prompt`` is None."""

    vlm: AnyModel
    prompt: str | None
    _said = False

    @property
    def question(self) -> str:
        """What the model is asked about each image."""
        return self.vlm.default_prompt if self.prompt is None else self.prompt

    def say_question(self) -> None:
        """Tell the log what is asked, once, before captions are written."""
        if not self._said:
            self._said = True
            log.info("question: %s", one_line(self.question))
