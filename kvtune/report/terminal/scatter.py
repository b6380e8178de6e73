"""The trade-off as a picture in the terminal: CHAIR_S across, F1 up."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from plotille import Canvas
from rich.text import Text

from kvtune.analysis.summary import StudySummary
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.facts import STATE_WORDS
from kvtune.report.roles import LOOKS, OVERLAY_LOOK, SMALLEST_SPAN, Look, Mark, front_line, marks

_BLANK = chr(0x2800)  # the braille pattern without dots
_MARGIN = 0.04

MINIMUM_WIDTH = 36


def scatter(
    summary: StudySummary,
    chosen: int | None,
    overlays: Sequence[OverlayPoint] = (),
    *,
    width: int,
    height: int | None = None,
    ascii_only: bool = False,
) -> Text:
    """Draw the trials of a study with its front, and a legend below.

    Parameters
    ----------
    chosen
        Number of the trial to mark as chosen, if any.
    overlays
        Results of other methods to draw beside them.
    width, height
        Size in characters, axes included and legend not; the height follows from the width where left out.
    ascii_only
        Use no character beyond ASCII; the front is then not joined.

    Returns
    -------
    Text
        Styled text; a console that has no colours prints it plain. Empty where the study has nothing to draw or
        ``width`` is below ``MINIMUM_WIDTH``.
    """
    points: list[Mark | OverlayPoint] = [*overlays, *marks(summary, chosen)]
    if not points or width < MINIMUM_WIDTH:
        return Text()
    height = height or max(12, min(24, width // 4))
    x_low, x_high = _limits([point.x for point in points])
    y_low, y_high = _limits([point.y for point in points])
    y_ticks = _ticks(y_low, y_high, height // 3)
    labels = {tick: _tick_label(tick, y_ticks) for tick in y_ticks}
    left = max(len(label) for label in labels.values())
    columns, rows = width - left - 2, height - 3  # less the axis, the numbers under it and the name above
    canvas = Canvas(columns, rows, x_low, y_low, x_high, y_high)

    if not ascii_only:
        corners = front_line(summary)
        for (x0, y0), (x1, y1) in pairwise(corners):
            canvas.line(x0, y0, x1, y1)
    on_top: dict[tuple[int, int], Mark | OverlayPoint] = {}
    for point in points:
        look = _look(point)
        canvas.point(point.x, point.y, marker=look.sign(ascii_only))
        cell = (_cell(point.x, x_low, x_high, columns * 2) // 2, _cell(point.y, y_low, y_high, rows * 4) // 4)
        on_top[cell] = point
    hidden = [point for point in points if all(point is not other for other in on_top.values())]

    vertical, corner, horizontal, notch = ("|", "+", "-", "+") if ascii_only else ("│", "└", "─", "┴")
    at_row = {_cell(tick, y_low, y_high, rows * 4) // 4: label for tick, label in labels.items()}
    text = Text("F1 %\n", no_wrap=True, overflow="crop")
    for index, line in enumerate(canvas.plot("\n").split("\n")):
        text.append(f"{at_row.get(rows - 1 - index, ''):>{left}} {vertical}")
        text.append_text(_painted(line))
        text.append("\n")
    rule, numbers = _x_axis(x_low, x_high, columns, horizontal, notch)
    text.append(f"{'':>{left}} {corner}{rule}\n{'':>{left}}  {numbers}\n")
    text.append_text(_legend(summary, points, hidden, width, ascii_only))
    return text


def _look(point: Mark | OverlayPoint) -> Look:
    return LOOKS[point.role] if isinstance(point, Mark) else OVERLAY_LOOK


def _legend(
    summary: StudySummary,
    points: Sequence[Mark | OverlayPoint],
    hidden: Sequence[Mark | OverlayPoint],
    width: int,
    ascii_only: bool,
) -> Text:
    drawn = {point.role for point in points if isinstance(point, Mark)}
    labels = []
    for kind, look in LOOKS.items():
        if kind not in drawn:
            continue
        having = [point for point in points if isinstance(point, Mark) and kind in point.roles]
        label = look.label
        if kind in ("chosen", "published"):
            label += f" (trial {having[0].trial.number})"
        elif kind != "baseline":
            label += f" ({len(having)})"
        if kind in ("baseline", "published") and any(point is having[0] for point in hidden):
            label += ", hidden by another"
        labels.append((look, label))
    kinds = Counter(point.kind for point in points if isinstance(point, OverlayPoint))
    labels += [(OVERLAY_LOOK, kind) for kind in kinds]
    entries = []
    for look, label in labels:
        entries.append(Text.assemble((look.sign(ascii_only), look.style), f" {label}"))
    legend = Text()
    room = width
    for entry in entries:
        if legend and entry.cell_len + 3 > room:
            legend.append("\n")
            room = width
        elif legend:
            legend.append("   ")
            room -= 3
        legend.append_text(entry)
        room -= entry.cell_len
    undrawn = Counter(trial.state for trial in summary.trials if trial.state in ("running", "failed"))
    if undrawn:
        legend.append(
            "\nnot drawn: " + ", ".join(f"{count} {STATE_WORDS[state]}" for state, count in sorted(undrawn.items()))
        )
    return legend


def _painted(line: str) -> Text:
    """Colour each glyph as its role and the joining line as the front."""
    looks = [*LOOKS.values(), OVERLAY_LOOK]
    styles = {glyph: look.style for look in looks for glyph in (look.glyph, look.ascii_glyph)}
    text = Text()
    for character in line:
        if character == _BLANK:
            text.append(" ")
        else:
            text.append(character, style=styles.get(character, LOOKS["front"].style))
    return text


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return axis limits in percent that leave a margin around ``values``."""
    low, high = min(values), max(values)
    span = max(high - low, SMALLEST_SPAN)
    middle = (low + high) / 2
    return middle - span * (0.5 + _MARGIN), middle + span * (0.5 + _MARGIN)


def _cell(value: float, low: float, high: float, dots: int) -> int:
    """Return the dot that plotille's canvas gives to ``value``: it rounds to even, as Python does."""
    return round((value - low) / ((high - low) / dots))


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return at most about ``count`` round numbers within [low, high]."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [
        index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1) if 0 <= index * step <= 100
    ]


def _tick_label(tick: float, ticks: Sequence[float]) -> str:
    whole = all(abs(value - round(value)) < 1e-9 for value in ticks)
    return f"{tick:.0f}" if whole else f"{tick:.1f}"


def _x_axis(low: float, high: float, columns: int, horizontal: str, notch: str) -> tuple[str, str]:
    """Return the axis and the line of numbers under it, its name at the right end."""
    name = "CHAIR_S %"
    rule = [horizontal] * columns
    numbers = [" "] * columns
    ticks = _ticks(low, high, columns // 9)
    for tick in ticks:
        column = _cell(tick, low, high, columns * 2) // 2
        label = _tick_label(tick, ticks)
        start = max(0, column - len(label) // 2)
        if column >= columns or start + len(label) > columns - len(name) - 1:
            continue
        rule[column] = notch
        numbers[start : start + len(label)] = label
    numbers[columns - len(name) :] = name
    return "".join(rule), "".join(numbers).rstrip()
