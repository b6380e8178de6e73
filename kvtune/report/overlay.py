"""Points of other methods, set beside a study's: numbers a paper reports, or captions scored here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OverlayPoint:
    """One result that is not of the study.

    Attributes
    ----------
    label
        What to call it.
    chair_s, f1
        Percent, 0-100.
    reported
        True for a number copied from a paper, over other images than the study's; False for captions of the study's
        own images scored by the study's own scorer.
    source
        Where it comes from: a paper, or the captions file.
    """

    label: str
    chair_s: float
    f1: float
    reported: bool
    source: str
