"""What a point of a study is (baseline, published, chosen, ...) and how each kind is drawn, everywhere alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import Rates, Scores
from kvtune.statistics.front import front

SMALLEST_SPAN = 2.0
"""Percentage points that an axis shows at least, so that a single point is not stretched over the whole picture."""

Role = Literal["chosen", "baseline", "published", "front", "complete", "raced"]


@dataclass(frozen=True)
class Look:
    """How one kind of point is drawn.

    Attributes
    ----------
    label
        Its name in tables.
    glyph, ascii_glyph
        One character in a terminal, with and without Unicode.
    style
        Rich style in a terminal.
    marker
        Matplotlib marker.
    colour
        Hex colour in pictures and pages, from Okabe and Ito's palette, which colour-blind readers can tell apart.
    explained
        Its name in legends, where that is another one.
    """

    label: str
    glyph: str
    ascii_glyph: str
    style: str
    marker: str
    colour: str
    explained: str = ""

    @property
    def legend(self) -> str:
        """Its name in legends."""
        return self.explained or self.label

    def sign(self, ascii_only: bool) -> str:
        """Its character in a terminal."""
        return self.ascii_glyph if ascii_only else self.glyph


LOOKS: dict[Role, Look] = {
    "chosen": Look("chosen", "★", "*", "bold yellow", "*", "#D55E00"),
    "baseline": Look("baseline", "■", "B", "bold red", "s", "#000000"),
    "published": Look("published", "▲", "P", "bold magenta", "^", "#CC79A7"),
    "front": Look("front", "●", "o", "cyan", "o", "#0072B2"),
    "complete": Look("other trials", "·", ".", "default", "o", "#999999"),
    "raced": Look("raced out", "×", "x", "dim", "x", "#999999", "raced out, fewer images"),
}
"""By falling precedence: where points coincide, the first of these is drawn on top."""

OVERLAY_LOOK = Look("other method", "◇", "+", "green", "D", "#009E73")
"""Results that are not of the study: see :mod:`kvtune.report.data.overlay`."""


@dataclass(frozen=True)
class Mark:
    """A point to draw; its first role decides how it looks."""

    trial: TrialSummary
    roles: tuple[Role, ...]
    scores: Scores

    @property
    def x(self) -> float:
        """CHAIR_S in percent."""
        return self.scores.chair_s

    @property
    def y(self) -> float:
        """F1 in percent."""
        return self.scores.f1

    @property
    def role(self) -> Role:
        return self.roles[0]


def roles(summary: StudySummary, trial: TrialSummary, chosen: int | None) -> list[Role]:
    """Return every role of ``trial``, the most telling first; empty for a trial that is failed or still running.

    Parameters
    ----------
    chosen
        Number of the trial that ``kvtune export`` would take, if any.
    """
    if trial.number is None:
        return ["baseline"]
    found: list[Role] = []
    if trial.number == chosen:
        found.append("chosen")
    if trial.published:
        found.append("published")
    if trial.number in summary.front:
        found.append("front")
    if not found and trial.state in ("complete", "raced"):
        found.append("raced" if trial.state == "raced" else "complete")
    return found


def marks(summary: StudySummary, chosen: int | None) -> list[Mark]:
    """Return what is drawn, the baseline included, the most telling last, so that it ends up on top.

    Failed and running trials are not drawn: their rates are missing, or over fewer images than the others'.
    """
    found = []
    for trial in summary.settings:
        if trial.state not in ("failed", "running") and trial.scores is not None:
            found.append(Mark(trial, tuple(roles(summary, trial, chosen)), trial.scores))
    order = list(LOOKS)
    return sorted(found, key=lambda mark: order.index(mark.role), reverse=True)


def front_line(summary: StudySummary) -> list[tuple[float, float]]:
    """Return the corners of the staircase that joins the front, (CHAIR_S, F1) from left to right."""
    return _staircase([mark.scores for mark in marks(summary, None) if "front" in mark.roles])


def cut_line(summary: StudySummary) -> list[tuple[float, float]]:
    """Return the corners of the staircase that joins the cuts of the baseline that no other cut dominates, on to the
    CHAIR_S of the whole baseline: what lies below it is beaten by a cut."""
    corners = _staircase(summary.cut_baseline)
    return [*corners, (max(corners[-1][0], summary.cut_baseline[-1].chair_s), corners[-1][1])] if corners else []


def best_cut(summary: StudySummary) -> Rates | None:
    """Return the cut of the baseline with the highest F1; None where it was not cut."""
    return max(summary.cut_baseline, key=lambda cut: (cut.f1, -cut.chair_s), default=None)


def _staircase(points: Sequence[Rates]) -> list[tuple[float, float]]:
    """Between two points nothing better than the left one's F1 was reached, so the line goes right, then up."""
    places = [(point.chair_s, point.f1) for point in points]
    corners: list[tuple[float, float]] = []
    for x, y in (places[index] for index in front(places)):
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return corners
