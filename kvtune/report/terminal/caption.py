"""Captions for the terminal, with the objects that they name marked."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.apply.made_with import about
from kvtune.chair.spans import MentionFinder
from kvtune.text import visible

if TYPE_CHECKING:
    from kvtune.apply.at_work import Done, Job

_SIDE_BY_SIDE = 90
"""Columns from which two captions stand side by side."""


def marked(caption: str, truth: Collection[str] | None, finder: MentionFinder) -> Text:
    """A caption whose objects are marked: in the picture or not where the ground truth is known, else only named.

    The marks are signs as well as colours, for terminals and readers without colour.
    """
    text = Text()
    at = 0
    for start, end, category in finder(caption):
        text.append(visible(caption[at:start]))
        if start < end:
            style, sign = ("underline", "")
            if truth is not None:
                style, sign = ("green", "✓") if category in truth else ("bold red", "✗")
            text.append(visible(caption[start:end]) + sign, style=style)
        at = max(at, end)
    text.append(visible(caption[at:]))
    return text


def captions_view(
    console: Console,
    captions: Sequence[tuple[str, str]],
    truth: Collection[str] | None,
    finder: MentionFinder,
) -> RenderableType:
    """Captions of one image, side by side where there is room.

    Parameters
    ----------
    captions
        (heading, text).
    truth
        The categories in the picture, None if unknown.
    """
    parts: list[RenderableType] = []
    if truth is not None:
        parts.append(
            Text(visible("in the picture: " + (", ".join(sorted(truth)) or "none of the 80 categories")), style="dim")
        )
    if console.width >= _SIDE_BY_SIDE and len(captions) > 1:
        table = Table(expand=True, show_lines=False)
        for heading, _ in captions:
            table.add_column(Text(visible(heading)), ratio=1)
        table.add_row(*(marked(text, truth, finder) for _, text in captions))
        parts.append(table)
    else:
        for heading, text in captions:
            parts += [Text(visible(heading), style="underline"), marked(text, truth, finder), Text()]
    return Group(*parts)


def applied_lines(job: "Job", done: "Done") -> list[str]:
    """What is said at the end of ``kvtune caption --out FILE``."""
    line = f"{job.out}: {done.captions:,} of {len(job.images):,} images have their caption"
    if done.images_per_second is not None:
        line += f"; {done.written:,} written now, {done.images_per_second:.1f} images a second"
    lines = [visible(line)]
    if done.skipped:
        lines.append(visible(f"left out: {len(done.skipped):,}, listed in {about(job.out)}"))
    return lines
