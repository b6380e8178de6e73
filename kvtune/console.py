"""Consoles for text that others wrote."""

from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from kvtune.text import visible, without_passwords


class PlainConsole(Console):
    """A console that shows text as it is.

    Nothing in a text is read as markup, as an emoji's name or as something to highlight; styles come from
    :class:`rich.text.Text` alone. Control characters appear as escapes, passwords in URLs as ``***``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def say(self, *sentences: str | Text) -> None:
        """Print sentences: on a terminal their words stay whole, elsewhere each is one line."""
        for sentence in sentences:
            self.print(sentence, soft_wrap=not self.is_terminal)

    def print_line(self, text: str | Text) -> None:
        """Print a line that stays one, such as a path or a command that is to be copied."""
        self.print(text, soft_wrap=True)

    def render_str(self, text: str, **settings: Any) -> Text:
        """See :meth:`rich.console.Console.render_str`; of text that was made safe."""
        return super().render_str(_safe(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> RenderResult:  # type: ignore[override]
        """See :meth:`rich.console.Console.render`; of text that was made safe."""
        if isinstance(renderable, Text) and _safe(renderable.plain) != renderable.plain:
            renderable = self._safe_text(renderable)
        return super().render(renderable, options)

    def _safe_text(self, text: Text) -> Text:
        layout = {name: getattr(text, name) for name in ("justify", "overflow", "no_wrap", "end", "tab_size")}
        pieces = [(_safe(piece.text), piece.style or "") for piece in text.render(self)]
        return Text.assemble(*pieces, **layout)


def _safe(text: str) -> str:
    return visible(without_passwords(text))
